"""How a network is trained."""

from typing import Annotated

from pydantic import Field

from profiles.source import Record


class AugmentConfig(Record):
    """Random geometry of the training images; all zero means none.

    Attributes:
        rotate: Largest rotation in degrees.
        shift: Largest shift as a share of the side, 0-1.
        zoom: Largest change of scale, 0-1.
    """

    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0


class TrainConfig(Record):
    """SGD with Nesterov momentum and one cosine learning-rate cycle, from the first segment of the trunk to the branch's end.

    Attributes:
        epochs: Length of the cycle, trunk and branch together.
        lr: Highest learning rate, after the linear warm-up.
        warmup_epochs: Length of the linear warm-up.
        weight_decay: Of weights; biases and BatchNorm have none.
        seed: Of data order and augmentation.
        checks_per_epoch: Segments of the trunk per epoch, each ended by a check of EPI.
        score_window: Batches that the gradient criteria are averaged over, the newest counting 1 / score_window.
        threads: CPU threads of the training; part of the result, since sums are rounded in another order.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    checks_per_epoch: Annotated[int, Field(ge=1)] = 2
    score_window: Annotated[int, Field(ge=1)] = 40
    threads: Annotated[int, Field(ge=1)] = 2
