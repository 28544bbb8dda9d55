"""Reads the condition of this machine: governor, clock, temperature and throttling, where the system tells them.

    before = read_condition()
    ...
    reasons = throttled_between(before, read_condition())

It reads /sys. On a Raspberry Pi it also asks `vcgencmd`, for an NVIDIA GPU `nvidia-smi`. A figure that nothing tells is None.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from bonsai.stages.backends.machine import query_gpus, tool_output
from bonsai.stages.backends.system_files import SYS, number_in, text_in
from bonsai.stages.backends.timing_records import Condition, Conditions, GpuCondition

ResultT = TypeVar("ResultT")
REPEATS = 2
"""Most times that a timing is repeated because the machine was slowed down."""
COOL_SECONDS = 10.0
"""Seconds between two tries, in which the machine cools."""
COOLING = ("Processor", "cpufreq", "thermal-cpufreq", "thermal-devfreq")
"""Types of cooling devices begin with one of these if they cool by a lower clock."""
PI_BITS: Mapping[int, str] = {0: "under-voltage", 1: "the clock is capped", 2: "throttled", 3: "the soft temperature limit is reached"}
"""Bits of `vcgencmd get_throttled` for the state now. Bit n + 16 is set if the state occurred since the start of the machine."""
SINCE_START = 16
GPU_REASONS: Mapping[int, str] = {0x08: "hardware slowdown", 0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown", 0x80: "power brake"}
"""Bits of NVIDIA's `clocks_throttle_reasons.active`. A power limit is none of them: many GPUs always run at theirs."""
GPU_COUNTERS = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""Fields `clocks_event_reasons_counters.*` of newer drivers, in microseconds."""


def watched(time_once: Callable[[], ResultT], read: Callable[[], Condition], *, pause: Callable[[float], None] = time.sleep) -> tuple[ResultT, Conditions]:
    """Time something, and again if the machine was slowed down meanwhile; return the last result with its conditions.

    Args:
        time_once: The timing.
        read: Reads the machine's condition.
        pause: Waits some seconds, so that the machine cools.
    """
    repeated = list[tuple[str, ...]]()
    while True:
        before = read()
        result = time_once()
        after = read()
        throttled = throttled_between(before, after)
        if not throttled or len(repeated) == REPEATS:
            cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(os.cpu_count() or 1))
            return result, Conditions(before=before, after=after, cores=cores, throttled=throttled, repeated=tuple(repeated))
        repeated.append(throttled)
        pause(COOL_SECONDS)


def read_condition(root: Path = SYS, *, gpu: bool = False) -> Condition:
    """Read the condition of this machine.

    Args:
        root: The folder `/sys`, or one that is laid out alike.
        gpu: Whether to ask `nvidia-smi` too, which takes tens of milliseconds.
    """
    cores = [each for each in root.glob("devices/system/cpu/cpu[0-9]*/cpufreq") if each.is_dir()]
    governors = sorted({text for each in cores if (text := text_in(each / "scaling_governor"))})
    clocks, limits, most = ([_kilo(each / f"{name}_freq") for each in cores] for name in ("scaling_cur", "scaling_max", "cpuinfo_max"))
    pi_now, pi_ever = _raspberry_pi()
    gpus, gpu_now, gpu_ever = _gpus() if gpu else ((), (), {})
    return Condition(
        governor=", ".join(governors) or None,
        clock_mhz=sum(known) / len(known) if (known := _known(clocks)) else None,
        limit_mhz=min(_known(limits), default=None),
        most_mhz=max(_known(most), default=None),
        temperature_c=max(_known(_kilo(each) for each in root.glob("class/thermal/thermal_zone*/temp")), default=None),
        throttling=(*_cooling(root), *pi_now, *gpu_now),
        throttled={**_counters(root), **pi_ever, **gpu_ever},
        gpus=gpus,
    )


def throttled_between(before: Condition, after: Condition) -> tuple[str, ...]:
    """Return why the machine was slowed down between two moments; empty if it was not, or if nothing tells."""
    rose = [reason for reason, count in after.throttled.items() if count > before.throttled.get(reason, count)]
    fell = []
    if before.limit_mhz is not None and after.limit_mhz is not None and after.limit_mhz < before.limit_mhz:
        fell.append(f"the clock's limit fell from {before.limit_mhz:.0f} to {after.limit_mhz:.0f} MHz")
    return tuple(dict.fromkeys([*before.throttling, *after.throttling, *rose, *fell]))


def _cooling(root: Path) -> Iterator[str]:
    """Yield the cooling devices that lower a clock now."""
    for device in sorted(root.glob("class/thermal/cooling_device*")):
        kind = text_in(device / "type") or ""
        if kind.startswith(COOLING) and (number_in(device / "cur_state") or 0) > 0:
            yield f"cooled by a lower clock ({kind})"


def _counters(root: Path) -> dict[str, int]:
    """Return how often x86 cores were too hot and a Jetson drew too much current, since the start."""
    found = {}
    for reason, pattern in (
        ("a core was too hot", "devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"),
        ("the CPU was too hot", "devices/system/cpu/cpu[0-9]*/thermal_throttle/package_throttle_count"),
        ("the board drew too much current", "class/hwmon/hwmon*/oc*_event_cnt"),
    ):
        counts = _known(number_in(file) for file in root.glob(pattern))
        if counts:
            found[reason] = int(sum(counts))
    return found


def _raspberry_pi() -> tuple[tuple[str, ...], dict[str, int]]:
    """Return why a Raspberry Pi is slowed down now, and what occurred since its start; nothing on another machine."""
    said = tool_output("vcgencmd", "get_throttled").strip()  # throttled=0x50005
    if not said.startswith("throttled=0x"):
        return (), {}
    bits = int(said.removeprefix("throttled="), 16)
    now = tuple(reason for bit, reason in PI_BITS.items() if bits >> bit & 1)
    return now, {reason: bits >> bit + SINCE_START & 1 for bit, reason in PI_BITS.items()}


def _gpus() -> tuple[tuple[GpuCondition, ...], tuple[str, ...], dict[str, int]]:
    """Return the condition of NVIDIA's GPUs, why they are slowed down now, and for how long they were."""
    gpus, now = [], list[str]()
    for line in query_gpus("clocks.sm,clocks.max.sm,temperature.gpu,clocks_throttle_reasons.active").splitlines():
        clock, most, temperature, active = (field.strip() for field in line.split(","))
        gpus.append(GpuCondition(clock_mhz=_leading(clock), most_mhz=_leading(most), temperature_c=_leading(temperature)))
        bits = int(active, 16) if active.startswith("0x") else 0
        now += [f"GPU: {reason}" for bit, reason in GPU_REASONS.items() if bits & bit]
    ever: dict[str, int] = {}
    for line in query_gpus(",".join(f"clocks_event_reasons_counters.{name}" for name in GPU_COUNTERS)).splitlines():
        for name, field in zip(GPU_COUNTERS, line.split(","), strict=True):
            reason = f"GPU: {name.replace('_', ' ')}"
            ever[reason] = ever.get(reason, 0) + int(_leading(field.strip()) or 0)
    return tuple(gpus), tuple(dict.fromkeys(now)), ever


def _leading(field: str) -> float | None:
    """Return the number that a field such as ``1980 MHz`` begins with; None for ``[N/A]``."""
    try:
        return float(field.split()[0])
    except (ValueError, IndexError):
        return None


def _kilo(file: Path) -> float | None:
    """Return a file's number over 1,000: kilohertz as megahertz, millidegrees as degrees."""
    number = number_in(file)
    return None if number is None else number / 1000


def _known(numbers: Iterable[float | None]) -> list[float]:
    return [number for number in numbers if number is not None]
