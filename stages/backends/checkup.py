"""What a person asks of a device before anything is timed there: `bonsai device check`."""

from collections.abc import Iterator

from bonsai.profiles.located_yaml import Record
from bonsai.stages.backends.machine import Machine
from bonsai.stages.backends.timing_records import Condition

UNTOLD = "not told by the system"
GIB = 2**30


class Checkup(Record):
    """A device at one moment.

    Attributes:
        usable_cores: Cores that a process of this user may use.
        memory_bytes: Main memory; None where the system does not tell.
        free_bytes: What of it a new process can get.
        python: Version of Python.
        installed: Versions of Bonsai and of the runtimes that are installed, by distribution.
        emulated: What gives an emulator away; empty if nothing does. No time is measured on an emulated machine.
        round_trip_ms: Median time of a question to the device and its answer, in milliseconds; None for this machine.
    """

    machine: Machine
    usable_cores: int
    condition: Condition
    memory_bytes: int | None
    free_bytes: int | None
    python: str
    installed: dict[str, str]
    emulated: str = ""
    round_trip_ms: float | None = None

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """What there is to tell, in words, by subject."""
        return tuple(self._rows())

    def _rows(self) -> Iterator[tuple[str, str]]:
        machine, condition = self.machine, self.condition
        yield "processor", machine.cpu
        yield "instruction sets", ", ".join(machine.isa) or "none that matters to a kernel"
        yield "cores", f"{machine.cores}, of which {self.usable_cores} can be used"
        yield "system", f"{machine.system} {machine.architecture}, Python {self.python}"
        for gpu in machine.gpus:
            yield "GPU", f"{gpu.name}, compute capability {gpu.sm}, driver {machine.driver}"
        yield "governor", condition.governor or UNTOLD
        yield "clock", _clock(condition)
        yield "temperature", f"{condition.temperature_c:.0f} °C" if condition.temperature_c is not None else UNTOLD
        yield "throttling", _throttling(condition)
        yield "memory", _gib(self.memory_bytes) + (f", {_gib(self.free_bytes)} free" if self.free_bytes is not None else "")
        yield "installed", ", ".join(f"{name} {version}" for name, version in self.installed.items())
        yield "round trip", f"{self.round_trip_ms:.1f} ms" if self.round_trip_ms is not None else "none: it is this machine"
        if self.emulated:
            yield "EMULATED", f"{self.emulated}: results can be checked here, and no time is measured"


def _clock(condition: Condition) -> str:
    if condition.clock_mhz is None:
        return UNTOLD
    limit, most = condition.limit_mhz, condition.most_mhz
    allowed = f" of {limit:.0f}" if limit is not None else ""
    capped = f"; the CPU could run at {most:.0f} MHz" if limit is not None and most is not None and limit < most else ""
    return f"{condition.clock_mhz:.0f} MHz{allowed}{capped}"


def _throttling(condition: Condition) -> str:
    """Return why the device is slowed down, now and earlier."""
    earlier = [reason for reason, count in condition.throttled.items() if count]
    since = f"; since its start: {', '.join(earlier)}" if earlier else ""
    if not condition.throttling and not condition.throttled:
        return "none now; the system counts no earlier one"
    return (", ".join(condition.throttling) or "none now") + since


def _gib(count: int | None) -> str:
    return UNTOLD if count is None else f"{count / GIB:.1f} GiB"
