"""What an engine costs beside its latency."""

from bonsai.profiles.located_yaml import Record
from bonsai.stages.measurement.interval_record import Interval


class Footprint(Record):
    """Start, memory and energy of an engine, from processes that had it alone.

    Attributes:
        processes: How many there were. A figure is the median over them.
        start_s: Seconds from the start of the process until the runtime was imported.
        load_s: Seconds to load the engine.
        first_s: Seconds of the first inference.
        warm_s: Seconds to load the engine again in the same process, with the first inference.
        before_mb: Main memory of the process before it loaded the engine, in megabytes (10^6 bytes); None where the device does not tell.
        peak_mb: Most main memory that it had from then on.
        memory_mb: Main memory that the engine added at most.
        memory: 95 % interval of that; None for one process.
        energy_mj: Energy of an inference in millijoules; None where the device does not tell.
        energy: 95 % interval of that; None for one process.
        meter: What measured the energy, or why nothing does.
    """

    processes: int
    start_s: float
    load_s: float
    first_s: float
    warm_s: float
    before_mb: float | None
    peak_mb: float | None
    memory_mb: float | None
    memory: Interval | None = None
    energy_mj: float | None
    energy: Interval | None = None
    meter: str

    @property
    def cold_s(self) -> float:
        """Seconds from the start of the process to the first output."""
        return self.start_s + self.load_s + self.first_s

    @property
    def figures(self) -> dict[str, float]:
        """Memory in megabytes, energy in millijoules and seconds of the cold start, by the names that programs read; those that the device tells."""
        figures = {"memory_mb": self.memory_mb, "energy_mj": self.energy_mj, "cold_start_s": self.cold_s}
        return {name: figure for name, figure in figures.items() if figure is not None}

    @property
    def cells(self) -> tuple[str, str, str]:
        """Memory in megabytes, energy in millijoules and seconds of the cold start, for a table; a dash where a figure is unknown."""
        memory, energy = ("-" if figure is None else f"{figure:.4g}" for figure in (self.memory_mb, self.energy_mj))
        return memory, energy, f"{self.cold_s:.2f}"

    @property
    def sentence(self) -> str:
        """The figures and how they were found, in one line."""
        parts = [
            f"cold start {self.cold_s:.3g} s (process and runtime {self.start_s:.3g}, loading {self.load_s:.3g}, first output {self.first_s:.3g})",
            f"loaded again in the same process {self.warm_s:.3g} s",
        ]
        if self.memory_mb is None:
            parts.append("memory unknown, since the device does not tell it")
        else:
            parts.append(f"peak memory {self.memory_mb:.4g} MB above the {self.before_mb:.4g} MB of the process without the engine")
        parts.append(f"energy unknown: {self.meter}" if self.energy_mj is None else f"energy {self.energy_mj:.4g} mJ an inference ({self.meter})")
        return f"{'; '.join(parts)}; alone in {self.processes} new process{'es' if self.processes > 1 else ''}"
