"""How a network is quantised."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record
from bonsai.stages.training.config import SoftTargets


class MixedConfig(Record):
    """The search for a small set of layers to keep in float.

    Attributes:
        images: Training images that the sensitivity of every layer is measured on.
        max_layers: Most layers that the search keeps in float, besides those of `keep_float`.
    """

    images: Annotated[int, Field(ge=1)] = 512
    max_layers: Annotated[int, Field(ge=1)] = 8


class QuantizeConfig(Record):
    """Calibration (PTQ), quantisation-aware fine-tuning (QAT) where it is needed, and layers left in float.

    Attributes:
        max_drop: Largest drop of the metric on the validation split that quantisation may cause. If it is larger, `when_needed` fine-tunes and
            `mixed` searches. The finished engine is judged by the profile's gates.
        qat: ``when_needed`` fine-tunes only if calibration alone misses `max_drop`; ``always`` fine-tunes in any case, ``never`` does not.
        epochs: Length of QAT.
        lr: Highest learning rate of QAT; it falls along half a cosine.
        calibration_batches: Training batches that the activation scales are calibrated on.
        frozen_epochs: Last epochs of QAT in which BatchNorm's statistics no longer move; fewer than `epochs`, because training
            on frozen statistics at a high learning rate diverges.
        distill: Imitation of the float network in QAT; null trains on the targets alone.
        keep_float: Globs over names of layers, or of modules that contain them; these layers stay float.
        mixed: If accuracy still drops by more than `max_drop`, finds a small set of layers to keep in float. Null for no search, because each costs latency.
        weight_bits: 8, 7, or null for the device's own: 8 where its instructions accumulate without saturation
            (VNNI, AMX, dot product, any GPU), 7 elsewhere.
    """

    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    qat: Literal["when_needed", "always", "never"] = "when_needed"
    epochs: Annotated[int, Field(ge=1)] = 4
    lr: Annotated[float, Field(gt=0)] = 0.01
    calibration_batches: Annotated[int, Field(ge=1)] = 8
    frozen_epochs: Annotated[int, Field(ge=0)] = 1
    distill: SoftTargets | None = None
    keep_float: tuple[str, ...] = ()
    mixed: MixedConfig | None = None
    weight_bits: Annotated[int, Field(ge=7, le=8)] | None = None

    @model_validator(mode="after")
    def _checks_fit(self) -> "QuantizeConfig":
        if self.frozen_epochs >= self.epochs:
            raise ValueError(f"`frozen_epochs` must be below `epochs` ({self.epochs}): frozen from the start, QAT diverges")
        if self.distill and self.qat == "never":
            raise ValueError("`distill` acts in QAT, which `qat: never` leaves out")
        return self

    @property
    def most_epochs(self) -> int:
        """Epochs that QAT may take."""
        return 0 if self.qat == "never" else self.epochs


def within(drop: float, limit: float) -> bool:
    """Whether a drop of accuracy is no larger than a limit, both shares 0-1; their difference is rounded."""
    return drop <= limit + 1e-9
