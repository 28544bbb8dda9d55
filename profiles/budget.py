"""The records of a budget: what the engine may take at the target, and at other batch sizes or numbers of threads."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from bonsai.profiles.located_yaml import Record

Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Budget(Record):
    """What the engine may take. Its latency is one of `latency` and `latency_ms`, which replaces the parent's.

    Attributes:
        latency: Fraction of the dense engine's latency at the target's reference precision: FP32, or FP16 where `precisions` has that alone of the two.
        latency_ms: Milliseconds per inference.
        percentile: Percentile of the latency that is judged; with `latency`, of the dense engine's latency too.
        p99_ms: Milliseconds, by the wall clock, that 99 of 100 inferences may take at most.
        memory_mb: Main memory in megabytes (10^6 bytes) that loading and running the engine may add to a process at its peak.
        size_mb: Size of the engine file in megabytes. Formerly `max_size_mb` among the gates.
        energy_mj: Millijoules per inference of the whole chip or board. The device must have a meter.
    """

    latency: Fraction | None = None
    latency_ms: Positive | None = None
    percentile: Literal[50, 90, 95] = 50
    p99_ms: Positive | None = None
    memory_mb: Positive | None = None
    size_mb: Positive | None = None
    energy_mj: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Budget":
        if (self.latency is None) == (self.latency_ms is None):
            raise ValueError("exactly one of `latency` (fraction of the dense FP32 engine's) and `latency_ms` (milliseconds)")
        return self

    def limit_ms(self, dense_ms: float) -> float:
        """Return the budget in milliseconds, given the dense FP32 engine's milliseconds at the percentile."""
        return self.latency_ms if self.latency_ms is not None else float(self.latency or 1) * dense_ms

    def __str__(self) -> str:
        limit = f"{self.latency_ms:g} ms" if self.latency_ms is not None else f"{self.latency:.4g} of the dense network"
        others = (("p99", self.p99_ms, "ms"), ("memory", self.memory_mb, "MB"), ("size", self.size_mb, "MB"), ("energy", self.energy_mj, "mJ"))
        return ", ".join([f"p{self.percentile} <= {limit}", *(f"{name} <= {most:g} {unit}" for name, most, unit in others if most is not None)])


class Point(Record):
    """Another batch size or number of threads of the target's device, where the same engine must meet a budget of its own.

    Attributes:
        batch: Images per inference; the target's if left out.
        threads: Threads that the runtime may use; the target's if left out. For a CPU only.
        budget: What the engine may take there. A fraction is of the dense engine at the same point. `size_mb` is left out: the file is one for all points.
    """

    batch: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    budget: Budget

    @field_validator("budget")
    @classmethod
    def _without_size(cls, budget: Budget) -> Budget:
        if budget.size_mb is not None:
            raise ValueError("every key but `size_mb`: the engine's file is one for all points, and the profile's `budget` limits it")
        return budget

    @property
    def label(self) -> str:
        """The batch and the threads that it names, in a few words: ``batch 8 and 2 threads``."""
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        return " and ".join([*([f"batch {self.batch}"] if self.batch is not None else []), *([threads] if self.threads is not None else [])])
