"""What a device tells beside the times of its engines: its condition, and what an engine costs that has a process to itself."""

from bonsai.profiles.located_yaml import Record


class GpuCondition(Record):
    """The condition of an NVIDIA GPU.

    Attributes:
        clock_mhz: Clock of its multiprocessors now.
        most_mhz: Their highest clock.
        temperature_c: Degrees Celsius.
    """

    clock_mhz: float | None
    most_mhz: float | None
    temperature_c: float | None


class Condition(Record):
    """The condition of a machine at one moment.

    Attributes:
        governor: Governor of the CPU clock; several are joined by commas.
        clock_mhz: Mean clock of the cores now.
        limit_mhz: Highest clock that the system allows now, of the core with the lowest.
        most_mhz: Highest clock of the fastest core.
        temperature_c: Hottest sensor of the machine, in degrees Celsius.
        throttling: Why the machine is slowed down now; empty if it is not, or if nothing tells.
        throttled: How often or how long it was slowed down since its start, by reason. Only differences mean something.
        gpus: The NVIDIA GPUs, where they were asked for.
    """

    governor: str | None = None
    clock_mhz: float | None = None
    limit_mhz: float | None = None
    most_mhz: float | None = None
    temperature_c: float | None = None
    throttling: tuple[str, ...] = ()
    throttled: dict[str, int] = {}
    gpus: tuple[GpuCondition, ...] = ()

    @property
    def sentence(self) -> str:
        """The figures in a few words; empty if the system tells none."""
        parts = [f"governor {self.governor}"] if self.governor else []
        if self.clock_mhz is not None:
            parts.append(f"{self.clock_mhz:.0f} MHz" + (f" of {self.limit_mhz:.0f}" if self.limit_mhz is not None else ""))
        if self.limit_mhz is not None and self.most_mhz is not None and self.limit_mhz < self.most_mhz:
            parts.append(f"the CPU could run at {self.most_mhz:.0f} MHz")
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c:.0f} °C")
        for gpu in self.gpus:
            told = [f"{gpu.clock_mhz:.0f} MHz" if gpu.clock_mhz is not None else "", f"{gpu.temperature_c:.0f} °C" if gpu.temperature_c is not None else ""]
            parts.append(f"GPU {', '.join(filter(None, told)) or 'tells nothing'}")
        return "; ".join([", ".join(parts), *([f"throttled: {', '.join(self.throttling)}"] if self.throttling else [])]).strip("; ")


class Conditions(Record):
    """The condition of a machine around a timing.

    Attributes:
        before: When the timing began.
        after: When it ended.
        cores: Numbers of the cores that the timing could use.
        throttled: Why the machine was slowed down meanwhile; empty if it was not, or if nothing tells.
        repeated: The same for each earlier try, which was thrown away.
    """

    before: Condition
    after: Condition
    cores: tuple[int, ...]
    throttled: tuple[str, ...]
    repeated: tuple[tuple[str, ...], ...] = ()

    @property
    def warning(self) -> str:
        """What was wrong with the timing, in a few words; empty if nothing was."""
        if not self.repeated and not self.throttled:
            return ""
        times = f"{len(self.repeated)} time{'s' if len(self.repeated) > 1 else ''}"
        reasons = ", ".join(dict.fromkeys(reason for each in (*self.repeated, self.throttled) for reason in each))
        done = f"it was repeated {times}" if self.repeated else "it was not repeated"
        return f"the device was slowed down ({reasons}); {done}{', and the last try counts although it was slowed down too' if self.throttled else ''}"


class Energy(Record):
    """The energy of an inference.

    Attributes:
        millijoules: Of one inference, with all its images.
        watts: Mean power meanwhile.
        meter: What measured it.
    """

    millijoules: float
    watts: float
    meter: str


class Untold(Record):
    """Why the machine does not tell a figure."""

    reason: str


class Alone(Record):
    """The figures of an engine that was alone in a new process.

    Attributes:
        start_s: Seconds from the start of the process until the runtime was imported.
        load_s: Seconds to load the engine.
        first_s: Seconds of the first inference.
        warm_s: Seconds to load the engine again in the same process, with the first inference.
        before_bytes: Main memory that the process had before it loaded the engine; None where the system does not tell.
        peak_bytes: Most main memory that it had from then on. Memory of a GPU is not counted.
        energy: Energy of an inference, or why nothing tells it.
    """

    start_s: float
    load_s: float
    first_s: float
    warm_s: float
    before_bytes: int | None
    peak_bytes: int | None
    energy: Energy | Untold

    @property
    def cold_s(self) -> float:
        """Seconds from the start of the process to the first output."""
        return self.start_s + self.load_s + self.first_s

    @property
    def engine_bytes(self) -> int | None:
        """Main memory that loading and running the engine added at most."""
        return None if self.peak_bytes is None or self.before_bytes is None else max(self.peak_bytes - self.before_bytes, 0)
