"""How a network is quantised."""

from typing import Annotated

from pydantic import Field, model_validator

from profiles.source import Record


class QuantizeConfig(Record):
    """Calibration, then quantisation-aware fine-tuning (QAT).

    Attributes:
        epochs: Length of QAT; 0 stops after calibration (PTQ).
        lr: Highest learning rate of QAT; it falls along half a cosine.
        calibration_batches: Training batches that the activation scales are calibrated on.
        frozen_epochs: Last epochs in which BatchNorm's statistics no longer move; fewer than `epochs`, because training
            on frozen statistics at a high learning rate diverges.
        weight_bits: 8, 7, or null for the device's own: 8 where its instructions accumulate without saturation
            (VNNI, AMX, dot product, any GPU), 7 elsewhere.
    """

    epochs: Annotated[int, Field(ge=0)] = 4
    lr: Annotated[float, Field(gt=0)] = 0.01
    calibration_batches: Annotated[int, Field(ge=1)] = 8
    frozen_epochs: Annotated[int, Field(ge=0)] = 1
    weight_bits: Annotated[int, Field(ge=7, le=8)] | None = None

    @model_validator(mode="after")
    def _thaws_first(self) -> "QuantizeConfig":
        if self.epochs and self.frozen_epochs >= self.epochs:
            raise ValueError(f"`frozen_epochs` must be below `epochs` ({self.epochs}): frozen from the start, QAT diverges")
        return self
