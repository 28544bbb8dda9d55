"""When to prune: the Early Pruning Indicator.

Shen, Molchanov, Yin, Alvarez, "When to Prune? A Policy towards Early Structural Pruning", CVPR 2022
(arXiv 2110.12007). At every check the sub-network that pruning *would* keep is compared with those of the last
checks; once it stops changing, the structure is stable and pruning can begin. The sub-network is that of
`stages/selection/subnetwork.py`: single channels, ranked by the scores of this moment.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.criteria import OF_WEIGHTS, Criterion
from bonsai.stages.pruning.groups import Kept

PAPER_TAU = {"weights": 0.983, "batches": 0.944}


class EpiConfig(Record):
    """Settings of the trigger.

    The paper trains 90 epochs and checks after each; `every` 0.01 is about that fraction. EPI can fire at check `first_check` at the earliest, 5 with
    the defaults.

    Attributes:
        tau: Threshold of EPI; null for the paper's: 0.983 for criteria of weights, 0.944 for those of gradients.
        every: Fraction of the learning-rate cycle, 0-1, between two checks.
        window: `r`, number of earlier sub-networks that the newest is compared with.
        monotone: `k`, number of earlier EPI values that the newest must not be below.
        latest: Fraction of the learning-rate cycle, 0-1, at which pruning happens even if EPI has not settled.
    """

    tau: Annotated[float, Field(ge=0, le=1)] | None = None
    every: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    window: Annotated[int, Field(ge=1)] = 3
    monotone: Annotated[int, Field(ge=0)] = 1
    latest: Annotated[float, Field(gt=0, lt=1)] = 0.25

    @property
    def first_check(self) -> int:
        """Number of the first check, from 1, at which EPI can fire: it needs `window` earlier sub-networks and `monotone` earlier values."""
        return self.window + self.monotone + 1

    @property
    def checks(self) -> int:
        """Number of checks up to the latest."""
        return int(self.latest / self.every + 1e-9)

    @model_validator(mode="after")
    def _can_fire(self) -> "EpiConfig":
        if self.checks < self.first_check:
            raise ValueError(
                f"EPI compares {self.window + 1} sub-networks and {self.monotone + 1} of its own values, and can fire at check {self.first_check} at the "
                f"earliest; up to `latest` there are {self.checks}: lower `every`, `window` or `monotone`, or raise `latest`"
            )
        return self


class Trigger(Record):
    """The moment a branch leaves the trunk.

    Attributes:
        policy: Which policy decided.
        check: Number of the check, from 1.
        epoch: Epochs trained until then.
        stable: False if EPI had not settled, and pruning happened because this was the latest check.
        tau: Threshold of EPI.
        epochs: Epochs trained at each check.
        curve: EPI by check; None while there were fewer than `window` earlier sub-networks.
        overlap: Mean Jaccard index of the channels kept now and the channels kept at the `window` checks before. None as in `curve`, and in
            results of older versions.
    """

    policy: str
    check: int
    epoch: float
    stable: bool
    tau: float
    epochs: tuple[float, ...]
    curve: tuple[float | None, ...]
    overlap: tuple[float | None, ...] = ()

    @model_validator(mode="after")
    def _as_long(self) -> "Trigger":
        return self if self.overlap else self.model_copy(update={"overlap": (None,) * len(self.curve)})

    @property
    def sentence(self) -> str:
        """When the branch left the trunk, and why."""
        return f"at epoch {self.epoch:.4g} (check {self.check}, policy {self.policy}{self._late})"

    @property
    def _late(self) -> str:
        if self.stable:
            return ""
        last = self.curve[-1] if self.curve else None
        if last is None:
            return "; the latest check came before EPI had a value"
        why = f"below the {self.tau:g} at which it fires" if last < self.tau else "and was still falling"
        return f"; this was the latest check, and EPI had NOT settled: it was {last:.3f}, {why}"


def similarity(first: Kept, second: Kept) -> float:
    """Return Psi, the similarity of two sub-networks in [0, 1]; 1 means equal widths.

    Psi = 1 - (1/L) * sum_l |n_l(N1) - n_l(N2)| / (n_l(N1) + n_l(N2)), over the L groups.
    """
    distances = [abs(len(first[g]) - len(second[g])) / max(len(first[g]) + len(second[g]), 1) for g in first]
    return 1 - sum(distances) / len(distances)


def jaccard(first: Kept, second: Kept) -> float:
    """Return the Jaccard index of the channels that two sub-networks keep, averaged over the groups: 1 means the same channels."""
    shares = [len(set(first[g]) & set(second[g])) / max(len(set(first[g]) | set(second[g])), 1) for g in first]
    return sum(shares) / len(shares)


def over_window(measure: Callable[[Kept, Kept], float], subnetworks: Sequence[Kept], window: int) -> list[float | None]:
    """Return (1/r) * sum_{j=1..r} measure(N_t, N_{t-j}) for every check t, None for the first r. With `similarity` as the measure, this is EPI."""
    return [sum(measure(subnetworks[t], subnetworks[t - j]) for j in range(1, window + 1)) / window if t >= window else None for t in range(len(subnetworks))]


def threshold(config: EpiConfig, criterion: Criterion) -> float:
    """Return tau: the config's, or the paper's for the criterion."""
    return config.tau if config.tau is not None else PAPER_TAU["weights" if criterion in OF_WEIGHTS else "batches"]


def settled(curve: Sequence[float | None], config: EpiConfig, tau: float) -> bool:
    """Whether EPI fires at the last check: EPI_t >= tau and EPI_t >= EPI_{t-j} for j = 1..k."""
    recent = curve[-(config.monotone + 1) :]
    if len(recent) <= config.monotone or any(value is None for value in recent):
        return False
    values = [value for value in recent if value is not None]
    return values[-1] >= tau and values[-1] >= max(values)
