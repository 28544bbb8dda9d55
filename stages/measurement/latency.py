"""The latency of one engine."""

from typing import Literal

from bonsai.profiles.located_yaml import Record

ROOFLINE, TABLE_ELSEWHERE = "roofline", "table measured elsewhere"
"""What an estimate may be from: published rates, or a latency table that was brought."""
ESTIMATE = "est."
"""Stands behind a number that is an estimate."""


class Latency(Record):
    """Latency of one engine, in milliseconds.

    Attributes:
        clock: Clock of `p50`, `mean` and `cv`: ``thread_cpu`` or ``wall``. Of an estimate, what it is from: `ROOFLINE` or `TABLE_ELSEWHERE`.
        p50: Of engines that were timed in turns with the dense one over the turns in which the machine was calm (`stages/measurement/calm.py`).
        p90: Wall time, like all percentiles above the median, because a thread's CPU time does not count waiting.
        p99: None below 1,000 samples.
        cv: Standard deviation over mean.
        source: ``measured`` on the engine, or ``estimated``.
    """

    source: Literal["measured", "estimated"]
    clock: str
    p50: float
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None
    n: int = 0
    cv: float | None = None
    wall_p50: float | None = None

    def at(self, percentile: int) -> float:
        """Return p50, p90 or p95; an estimate has p50 alone, which stands for all."""
        found = getattr(self, f"p{percentile}")
        return float(self.p50 if found is None else found)

    def with_median(self, calm: "Latency") -> "Latency":
        """Return this latency with the median of the calm turns; the tail and the spread are of all runs."""
        return self.model_copy(update={"p50": calm.p50, "wall_p50": calm.wall_p50})

    @property
    def told(self) -> str:
        """Where the latency is from, in a few words: an estimate by a table that was brought says that the table was measured elsewhere."""
        return f"{self.source}, {self.clock}" if self.clock == TABLE_ELSEWHERE else self.source

    @property
    def mark(self) -> str:
        """The same behind a number; empty for what was measured."""
        if self.source == "measured":
            return ""
        return f"{ESTIMATE}, {self.clock}" if self.clock == TABLE_ELSEWHERE else ESTIMATE

    @property
    def stable(self) -> bool:
        """Whether the samples spread by no more than 2.5 %; an estimate has no spread."""
        return self.cv is None or self.cv <= 0.025
