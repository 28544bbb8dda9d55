"""When a branch leaves the trunk: EPI, or one of the policies that EPI is judged against."""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.epi import EpiConfig, settled

WARMUP = 0.1
"""Part of a recovery of its own length over which the learning rate rises (`docs/pruning.md` has what it was chosen by)."""


class FinetuneConfig(Record):
    """Training of a network that is pruned after its cycle has ended: a cycle of its own, without warm-up.

    Attributes:
        epochs: Length.
        lr: Highest learning rate; it falls along half a cosine.
    """

    epochs: Annotated[int, Field(ge=1)] = 10
    lr: Annotated[float, Field(gt=0)] = 0.01


class RecoverConfig(Record):
    """Training after the last cut.

    Attributes:
        epochs: Length; what is left of the learning-rate cycle is stretched to it. Null leaves the cycle as it is, so that the branch ends where the
            dense network does. ``auto``: so long that it all costs, in multiply-accumulates, what training, pruning and half a cycle of fine-tuning would.
            While the validation figure misses the gates and still gains, it goes on by a quarter of that at a time.
        most: Only for ``auto``: the largest length in epochs. Null: twice the least length.
        warmup: Part of the steps after the cut, 0-1, over which the learning rate rises to that of the cycle; with ``auto`` of its least length. Null: 0.1
            with ``auto``, otherwise none.
    """

    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    most: Annotated[int, Field(ge=1)] | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "RecoverConfig":
        if self.most is not None and self.epochs != "auto":
            raise ValueError("`most` belongs to `epochs: auto`: any other length is fixed")
        return self

    def identity(self) -> str:
        """Return what tells recoveries apart; a key that changes nothing is not named, so that artifacts of earlier versions keep their keys."""
        unnamed = {key for key, unsaid in (("most", self.most is None), ("warmup", not self.rise)) if unsaid}
        return self.model_copy(update={"warmup": self.rise}).model_dump_json(exclude=unnamed)

    @property
    def rise(self) -> float:
        """Part of the steps over which the learning rate rises."""
        return self.warmup if self.warmup is not None else WARMUP if self.epochs == "auto" else 0.0


class PolicyConfig(Record):
    """When to prune.

    Attributes:
        name: ``epi``; ``epoch``: at a fixed epoch; ``initialisation``: before any training, as SNIP does; ``trained``: after the
            whole cycle, with a fine-tuning of its own (train-prune-finetune).
        epoch: Only for ``epoch``: the branch leaves at the first check at or after it.
        finetune: Only for ``trained``: the fine-tuning after the cut.
    """

    name: Literal["epi", "epoch", "initialisation", "trained"] = "epi"
    epoch: Annotated[float, Field(gt=0)] | None = None
    finetune: FinetuneConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> "PolicyConfig":
        for key, owner in (("epoch", "epoch"), ("finetune", "trained")):
            if (getattr(self, key) is not None) != (self.name == owner):
                raise ValueError(f"`{key}` belongs to the policy `{owner}`: {'it needs one' if self.name == owner else f'not to `{self.name}`'}")
        return self


def check_steps(policy: PolicyConfig, epi: EpiConfig, *, total: int, per_epoch: int) -> list[int]:
    """Return the optimizer steps at which the policy is checked, ascending.

    Args:
        policy: The policy.
        epi: Says how often to check, and until when.
        total: Optimizer steps of the learning-rate cycle.
        per_epoch: Optimizer steps of an epoch.

    Raises:
        ConfigError: The training is too short for EPI to fire.
    """
    stops = sorted({round(total * epi.every * check) for check in range(1, epi.checks + 1)} - {0})
    if policy.name == "epi" and len(stops) < epi.first_check:
        raise ConfigError(
            describe(
                "the training is too short for EPI to fire",
                given=f"{total} optimizer steps, the latest check at {epi.latest:.0%} of them: {len(stops)} checks, at most one a step",
                allowed=f"at least {epi.first_check} checks, with prune.epi.window {epi.window} and prune.epi.monotone {epi.monotone}",
                fix="raise training.epochs or prune.epi.latest, lower training.batch_size, or choose another prune.policy",
            )
        )
    if policy.name == "epoch":
        stops = sorted({*stops, min(ceil((policy.epoch or 0) * per_epoch - 1e-9), total)})
    return stops or [total]


def fires(policy: PolicyConfig, epi: EpiConfig, *, tau: float, curve: Sequence[float | None], epoch: float) -> bool:
    """Return whether the branch leaves now.

    Args:
        policy: Which policy.
        epi: Settings of the policy ``epi``.
        tau: Threshold of EPI.
        curve: EPI by check, the present one last.
        epoch: Epochs trained; ``trained`` is left to the caller, who knows where the cycle ends.
    """
    if policy.name == "epi":
        return settled(curve, epi, tau)
    if policy.name == "epoch":
        return epoch >= (policy.epoch or 0) - 1e-9
    return policy.name == "initialisation"
