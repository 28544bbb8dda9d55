"""What is pruned, when, and how far."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.criteria import OF_WEIGHTS, REMOVED, Criterion, Normalisation
from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.pruning.policy import PolicyConfig, RecoverConfig
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.training.config import DistillConfig

Share = Annotated[float, Field(gt=0, le=1)]
CEILING = 1.0
"""Where `growing` stops: the limit in the code of arXiv 2012.09243; SGD grows unstable at some multiple of 1 / learning rate."""


class RegulariserConfig(Record):
    """Which penalty, and how strong.

    Attributes:
        name: ``none``, ``group_lasso``, ``bn_l1`` or ``growing``.
        strength: 0-1, in units of the loss. ``group_lasso``: the root mean square of what is added to the gradients of a channel's
            parameters, whatever their number and size; ``bn_l1``: what is added to the gradient of every gamma, up to its sign;
            ``growing``: the weight decay that every channel starts with.
        growth: Only for ``growing``: weight decay added to a group's least important channel at a time; 1e-4 in the authors' code.
        every: Only for ``growing``: optimizer steps from one growth to the next; 10 on CIFAR and 5 on ImageNet in the
            authors' code.
    """

    name: Literal["none", "group_lasso", "bn_l1", "growing"] = "none"
    strength: Annotated[float, Field(ge=0, le=CEILING)] = 1e-4
    growth: Annotated[float, Field(gt=0)] | None = None
    every: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "RegulariserConfig":
        for key in ("growth", "every"):
            if (getattr(self, key) is not None) != (self.name == "growing"):
                raise ValueError(f"`{key}` belongs to the regulariser `growing`: {'it needs one' if self.name == 'growing' else f'not to `{self.name}`'}")
        return self


class PruneConfig(Record):
    """Structured pruning to a latency budget.

    Attributes:
        policy: When a branch leaves the trunk.
        epi: Settings of the policy ``epi``.
        schedule: How the removal is spread over training steps.
        recover: Length of the training after the last cut; the policy ``trained`` uses `policy.finetune` instead.
        criterion: Score by which channels are ranked and widths are valued (`stages/pruning/scores.py`).
        value: The value of widths, whose sum selection maximises (`stages/selection/values.py`).
        normalisation: How the scores of different groups are made comparable: for EPI, and for widths of ``value: sum``. With ``reciprocal`` the widths do
            not depend on it.
        regulariser: Penalty that pulls whole channels towards zero in the trunk, and so also in the dense reference.
        keep: Globs over names of layers. All output channels of these layers are kept, and all channels coupled with them.
        floor: Smallest fraction of a group's channels, 0-1, that is kept.
        floors: Other floors for the groups of some layers: from a glob over names of layers to a fraction; the last glob that matches counts.
        caps: Largest fraction of a group's channels that is kept, in the same form.
        blocks: Whether residual blocks may be left out as a whole; what their absence costs is measured on training images when the branch leaves.
        resolutions: Other sizes of images that the pruned network may take: lengths of the shorter side in pixels. The images' own size is always a choice.
        rounds: Most networks that the closed loop builds and times.
        margin: Fraction of the budget, 0-1, that the closed loop leaves free beside the verdict's interval: the gate is met only if the whole interval
            is within the budget, so the loop judges a network by where that interval's upper end will probably be.
        tolerance: The loop ends once the latency is at most this fraction below its aim (the budget less `margin`).
        distill: Distillation from the trunk's dense network after the cut; null trains on the labels alone.
        batchnorm_batches: Training batches that BatchNorm's statistics are estimated on after the cut.
    """

    policy: PolicyConfig = PolicyConfig()
    epi: EpiConfig = EpiConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    recover: RecoverConfig = RecoverConfig()
    criterion: Criterion = "bn_gradient"
    value: Literal["reciprocal", "sum"] = "reciprocal"
    normalisation: Normalisation = "none"
    regulariser: RegulariserConfig = RegulariserConfig()
    keep: tuple[str, ...] = ()
    floor: Share = 0.1
    floors: dict[str, Share] = {}
    caps: dict[str, Share] = {}
    blocks: bool = False
    resolutions: tuple[Annotated[int, Field(ge=1)], ...] = ()
    rounds: Annotated[int, Field(ge=1)] = 6
    margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.008
    distill: DistillConfig | None = None
    batchnorm_batches: Annotated[int, Field(ge=1)] = 18

    @field_validator("criterion", mode="before")
    @classmethod
    def _removed(cls, value: object) -> object:
        if isinstance(value, str) and value in REMOVED:
            reason, instead = REMOVED[value]
            raise ValueError(f"`{value}` was removed, because {reason}: use `{instead}`")
        return value

    @model_validator(mode="after")
    def _returns(self) -> "PruneConfig":
        living = (*OF_WEIGHTS, "bn_gradient")
        if self.schedule.soft and self.criterion not in living:
            raise ValueError(f"`schedule.soft` needs a criterion that scores a masked channel too: {', '.join(living)}; by {self.criterion} none could return")
        if self.policy.finetune and self.recover.epochs:
            raise ValueError("`recover.epochs` is the length of a branch within the cycle: with the policy `trained` it is `policy.finetune.epochs`")
        if self.policy.finetune and self.recover.warmup:
            raise ValueError("`recover.warmup` belongs to a branch within the cycle: the fine-tuning of the policy `trained` has none")
        if self.resolutions and self.distill:
            raise ValueError("`distill` does not go with `resolutions`: the teacher takes images of the full size, the pruned network smaller ones")
        if self.policy.name == "initialisation":
            if self.resolutions:
                raise ValueError("`resolutions` need a trained network: with the policy `initialisation` nobody knows what smaller images cost")
            if self.blocks:
                raise ValueError("`blocks` need a trained network: with the policy `initialisation` nobody knows what their absence costs")
            if self.regulariser.name != "none":
                raise ValueError("`regulariser` acts in the trunk, before the branch leaves: with the policy `initialisation` it has no time to")
            if self.distill and self.distill.teacher == "trigger":
                raise ValueError("`distill.teacher: trigger` is an untrained network with the policy `initialisation`: choose `trained`")
        return self


def require_own_loop(config: PruneConfig) -> None:
    """Refuse settings that only Bonsai's own training loop can follow.

    Raises:
        ConfigError: The policy prunes before or after the training, blocks may be left out, or images may get smaller.
    """
    asked = {
        f"policy {config.policy.name}": config.policy.name in ("initialisation", "trained"),
        "blocks": config.blocks,
        "resolutions": bool(config.resolutions),
    }
    if any(asked.values()):
        raise ConfigError(
            describe(
                "a pruner in your own training loop cannot do this",
                given=", ".join(name for name, found in asked.items() if found),
                allowed="the policies epi and epoch, and channels alone, of images that your loop makes",
                fix="call `cut()` before the first step or after the last one, leave `blocks` and `resolutions` out, or use a recipe",
            )
        )
