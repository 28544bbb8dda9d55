"""When to prune: the Early Pruning Indicator.

Shen, Molchanov, Yin, Alvarez, "When to Prune? A Policy towards Early Structural Pruning", CVPR 2022
(arXiv 2110.12007). At every check the sub-network that pruning *would* keep is compared with the last
ones; once it stops changing, the structure is stable and pruning can begin.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from profiles.source import Record
from stages.pruning.groups import Widths
from stages.pruning.scores import WEIGHT_CRITERIA, Criterion

PAPER_TAU = {"weights": 0.983, "batches": 0.944}


class EpiConfig(Record):
    """Settings of the trigger.

    Attributes:
        tau: Threshold of EPI; null for the paper's: 0.983 for criteria of weights, 0.944 for those of gradients and activations.
        window: `r`, number of earlier sub-networks that the newest is compared with.
        monotone: `k`, number of last EPI values that the newest must not fall below.
        latest: Share of the learning-rate cycle, 0-1, at which pruning happens even if EPI never settled.
    """

    tau: Annotated[float, Field(ge=0, le=1)] | None = None
    window: Annotated[int, Field(ge=1)] = 5
    monotone: Annotated[int, Field(ge=0)] = 5
    latest: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Trigger(Record):
    """The moment a branch leaves the trunk.

    Attributes:
        policy: Which policy decided.
        check: Number of the check, from 1.
        epoch: Epochs trained until then.
        stable: False if pruning happened at the latest check though EPI had not settled.
        tau: Threshold of EPI.
        epochs: Epochs trained at each check.
        curve: EPI by check; None while there were fewer than `window` earlier sub-networks.
    """

    policy: str
    check: int
    epoch: float
    stable: bool
    tau: float
    epochs: tuple[float, ...]
    curve: tuple[float | None, ...]

    @property
    def sentence(self) -> str:
        """When the branch left, and why, in a few words."""
        late = "" if self.stable else "; this was the latest check allowed: EPI had NOT settled"
        return f"at epoch {self.epoch:.4g} (check {self.check}, policy {self.policy}{late})"


def similarity(first: Widths, second: Widths) -> float:
    """Return Psi, the similarity of two sub-networks in [0, 1]; 1 means equal widths.

    Psi = 1 - (1/L) * sum_l |n_l(N1) - n_l(N2)| / (n_l(N1) + n_l(N2)), over the L groups.
    """
    distances = [abs(first[g] - second[g]) / max(first[g] + second[g], 1) for g in first]
    return 1 - sum(distances) / len(distances)


def epi_curve(subnetworks: Sequence[Widths], window: int) -> list[float | None]:
    """Return EPI_t = (1/r) * sum_{j=1..r} Psi(N_t, N_{t-j}) for every check t."""
    return [
        sum(similarity(subnetworks[t], subnetworks[t - j]) for j in range(1, window + 1)) / window if t >= window else None for t in range(len(subnetworks))
    ]


def threshold(config: EpiConfig, criterion: Criterion) -> float:
    """Return tau: the config's, or the paper's for the criterion."""
    return config.tau if config.tau is not None else PAPER_TAU["weights" if criterion in WEIGHT_CRITERIA else "batches"]


def settled(curve: Sequence[float | None], config: EpiConfig, tau: float) -> bool:
    """Whether EPI fires at the last check: EPI_t >= tau and EPI_t >= EPI_{t-j} for j = 1..k."""
    recent = curve[-(config.monotone + 1) :]
    if len(recent) <= config.monotone or any(value is None for value in recent):
        return False
    values = [value for value in recent if value is not None]
    return values[-1] >= tau and values[-1] >= max(values)
