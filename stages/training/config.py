"""How a network is trained."""

from typing import Annotated, Literal

from pydantic import Field

from bonsai.profiles.located_yaml import Record
from bonsai.stages.tasks.loss_config import LossConfig


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
    """One cosine learning-rate cycle, from the first segment of the trunk to the branch's end.

    Attributes:
        epochs: Length of the cycle, trunk and branch together.
        batch_size: Images per optimizer step.
        lr: Highest learning rate, after the linear warm-up.
        warmup_epochs: Length of the linear warm-up.
        optimizer: ``sgd``, with Nesterov's momentum, or ``adamw``.
        momentum: SGD's momentum, or AdamW's first beta.
        beta2: AdamW's second beta.
        weight_decay: Weight decay of weights; biases and BatchNorm have none.
        loss: Form and options of the loss; docs/tasks.md has a table.
        label_smoothing: Share of the target, 0-1, that is spread over all classes; a regression has none.
        balance: ``weights`` lets rare classes, labels or figures count more in the loss, by their number in the training part, and so sets `loss.weights`.
        ema: Decay per step, 0-1, of a moving average of the weights, which is then what is evaluated and shipped; null for none.
        precision: ``fp32``, or ``bf16`` or ``fp16`` where torch's autocast holds that to be safe; ``fp16`` scales the loss.
        seed: Seed of data order and augmentation.
        score_window: Batches that the gradient criteria are averaged over, the newest counting 1 / score_window.
        threads: CPU threads of the training; part of the result, since sums are rounded in another order.
        device: Device of the training: ``cpu`` or ``cuda``. On ``cuda``, FP32 convolutions use TF32, torch's default.
        workers: Number of processes that load and augment images ahead. The result is the same with any number. null: none on a CPU, whose
            cores train, and up to four beside a GPU.
        reference: Network that accuracy is compared with. ``trained``: the unpruned network, trained to the end of the cycle. ``given``: the unpruned
            network with the weights that its factory loads from a file of `model.files`; the training starts there too. ``none``: no network, so the
            profile needs ``gates.max_drop: null``. With ``given`` and ``none`` the trunk ends when the last target branches off. The dense network is
            timed in any case.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    loss: LossConfig = LossConfig()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    balance: Literal["none", "weights"] = "none"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    score_window: Annotated[int, Field(ge=1)] = 40
    threads: Annotated[int, Field(ge=1)] = 2
    device: Literal["cpu", "cuda"] = "cpu"
    workers: Annotated[int, Field(ge=0)] | None = None
    reference: Literal["trained", "given", "none"] = "trained"

    def identity(self) -> str:
        """Return what a training stage's result depends on: neither on the workers nor on what accuracy is compared with later."""
        return self.model_dump_json(exclude={"workers", "reference"})


class SoftTargets(Record):
    """How a teacher's outputs are imitated.

    Attributes:
        weight: Share of the teacher's loss, 0-1; the labels have the rest.
        temperature: Softens both distributions.
    """

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 4.0


class DistillConfig(SoftTargets):
    """Distillation in the recovery.

    Attributes:
        teacher: ``trained``, the dense reference, which `training.reference` names, or ``trigger``, the dense network as it was when the branch left.
    """

    teacher: Literal["trained", "trigger"] = "trained"
