"""Measures the energy of an inference where the machine has a meter: RAPL of an x86 CPU, or the INA sensors of a Jetson and other boards.

A meter covers the whole chip or board. Its figure contains the idle power and what other programs do meanwhile.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from bonsai.stages.backends.system_files import number_in, text_in
from bonsai.stages.backends.timing_records import Energy, Untold

SECONDS = 2.0
"""How long an engine is run for its energy. RAPL counts in steps of about 1 ms."""
LEAST_RUNS = 20
SAMPLE_SECONDS = 0.02
"""Time between two readings of a power sensor."""
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Labels of channels of a Jetson that measure the whole board. A board without one has a channel for each part of it."""


def measure_energy(run: Callable[[], object], root: Path, kind: Literal["cpu", "gpu"], *, seconds: float = SECONDS) -> Energy | Untold:
    """Run an engine for some seconds, and return the energy of one run.

    Args:
        run: One inference.
        root: The folder `/sys`, or one that is laid out alike.
        kind: Kind of processor that runs it. RAPL tells nothing of a GPU.
        seconds: How long to run it.
    """
    zones = list(_rapl_zones(root)) if kind == "cpu" else []
    if zones and all(number_in(zone / "energy_uj") is not None for zone in zones):
        return _by_counter(run, zones, seconds)
    if _power_uw(root) is not None:
        return _by_power(run, root, seconds)
    if zones:
        return Untold(reason=f"{zones[0] / 'energy_uj'} may not be read; on most systems only root may")
    asked = "no RAPL counter under /sys/class/powercap and no INA sensor" if kind == "cpu" else "no INA sensor"
    return Untold(reason=f"the machine has {asked} under /sys/class/hwmon")


def _by_counter(run: Callable[[], object], zones: list[Path], seconds: float) -> Energy:
    before = [number_in(zone / "energy_uj") or 0 for zone in zones]
    runs, took = _repeat(run, seconds)
    used = 0.0
    for zone, first in zip(zones, before, strict=True):
        counted = (number_in(zone / "energy_uj") or 0) - first
        used += counted if counted >= 0 else counted + (number_in(zone / "max_energy_range_uj") or 0)  # it starts again at 0
    return Energy(millijoules=used / 1e3 / runs, watts=used / 1e6 / took, meter="RAPL, the whole CPU")


def _by_power(run: Callable[[], object], root: Path, seconds: float) -> Energy:
    found, ended = list[float](), threading.Event()

    def sample() -> None:
        while not ended.is_set():
            found.extend(power for power in [_power_uw(root)] if power is not None)
            ended.wait(SAMPLE_SECONDS)

    sampler = threading.Thread(target=sample)
    sampler.start()
    runs, took = _repeat(run, seconds)
    ended.set()
    sampler.join()
    watts = sum(found) / len(found) / 1e6
    return Energy(millijoules=watts * took / runs * 1e3, watts=watts, meter="INA sensors, the whole board")


def _repeat(run: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Run for some seconds; return the number of runs and the seconds that they took."""
    started, runs = time.monotonic(), 0
    while runs < LEAST_RUNS or time.monotonic() - started < seconds:
        run()
        runs += 1
    return runs, time.monotonic() - started


def _rapl_zones(root: Path) -> Iterator[Path]:
    """Yield the counters of whole CPUs; those of their parts lie below them."""
    for zone in sorted(root.glob("class/powercap/intel-rapl:*")):
        if zone.name.count(":") == 1 and (text_in(zone / "name") or "").startswith("package"):
            yield zone


def _power_uw(root: Path) -> float | None:
    """Return the power that the INA sensors measure now, in microwatts; None where there is none."""
    channels: dict[str, float] = {}
    for chip in sorted(root.glob("class/hwmon/hwmon*")):
        if not (text_in(chip / "name") or "").startswith("ina"):
            continue
        for file in chip.glob("power*_input"):
            channels[f"{chip.name}/{file.name}"] = number_in(file) or 0
        for label in chip.glob("in*_label"):
            number = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = number_in(chip / f"in{number}_input"), number_in(chip / f"curr{number}_input")  # millivolts, milliamperes
            if volts is not None and amperes is not None:
                channels[text_in(label) or label.name] = volts * amperes
    whole = [power for name, power in channels.items() if name in WHOLE_BOARD]
    return (whole[0] if whole else sum(channels.values())) if channels else None
