"""How latency is measured, as a recipe says it; `timing.py` does it. No NumPy: a recipe is read in half the time without."""

from typing import Annotated

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record

LEAST_RUNS = 60


class VerdictConfig(Record):
    """Number of processes in which the finished engine is timed for the latency gate.

    Attributes:
        processes: Fewest; so many are added while the gate is undecided.
        most: Most.
    """

    processes: Annotated[int, Field(ge=3)] = 3
    most: Annotated[int, Field(ge=3)] = 9

    @model_validator(mode="after")
    def _ordered(self) -> "VerdictConfig":
        if self.most < self.processes:
            raise ValueError(f"`most` must be at least `processes` ({self.processes})")
        return self


class TimingConfig(Record):
    """How latency is measured.

    Attributes:
        runs: Timed runs of each engine; p99 is reported from 1,000 on.
        seconds: A slow engine is run less often, so that its runs take about this long, but no fewer than 60 times.
        block: Runs of one engine before the next has its turn.
        fitting: Random networks that the latency model is fitted to, besides the dense and the narrowest; half of them are near the budget.
        steady: Relative standard error of the medians above which the engines are timed again.
        tries: Most times that they are timed; the steadiest counts.
        warmup_runs: Runs before anything is timed.
        warmup_seconds: The warm-up lasts at least this long.
        verdict: Number of processes in which the finished engine is timed again for the latency gate; `runs` and `seconds` are shared among the fewest.
    """

    runs: Annotated[int, Field(ge=20)] = 2000
    seconds: Annotated[float, Field(gt=0)] = 20
    block: Annotated[int, Field(ge=1)] = 25
    fitting: Annotated[int, Field(ge=0)] = 24
    steady: Annotated[float, Field(gt=0)] = 0.006
    tries: Annotated[int, Field(ge=1)] = 3
    warmup_runs: Annotated[int, Field(ge=1)] = 200
    warmup_seconds: Annotated[float, Field(ge=0)] = 0.5
    verdict: VerdictConfig = VerdictConfig()

    def identity(self) -> str:
        """Return the JSON without `verdict`: timing a finished engine in more processes must not train it anew."""
        return self.model_dump_json(exclude={"verdict"})

    def in_process(self) -> "TimingConfig":
        """Return the protocol of one process of the verdict."""
        share = self.verdict.processes
        return self.model_copy(update={"runs": max(-(-self.runs // share), min(self.runs, LEAST_RUNS)), "seconds": self.seconds / share})
