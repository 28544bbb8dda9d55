"""One phase of training that survives being killed: trunk segment, branch or QAT."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import nn

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.tasks.registry import learning_of, task_named
from bonsai.stages.training.balancing import balanced
from bonsai.stages.training.batches import Batches, load_split
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.evaluation import evaluate
from bonsai.stages.training.loop import Observer, Penalty, train_steps
from bonsai.stages.training.progress import report
from bonsai.stages.training.rates import Rate, learning_rate
from bonsai.stages.training.resume import load_progress, save_progress
from bonsai.stages.training.state import TrainState
from bonsai.stages.training.tracking import track


class Phase:
    """Trains a network from one step of the cycle to another, epoch by epoch.

    Args:
        name: Which phase, for the learning curve.
        dataset: Source of the training and validation images.
        config: The cycle; data order depends on its seed and the step alone.
        resume: Folder for the phase's own checkpoints, one after every epoch but the last.

    Attributes:
        config: The cycle, with the weights of the loss that the training part asks for.
    """

    def __init__(self, name: Literal["trunk", "branch", "qat"], dataset: Dataset, config: TrainConfig, resume: Path) -> None:
        images = PreparedImages(dataset, "train")
        self.task = task_named(dataset.task)
        self.config = balanced(config, self.task, images.targets.numpy(), len(dataset.classes))
        self.batches = Batches(images, config, moves_targets=self.task.moves_with_image)
        self.learning = learning_of(dataset.task, self.config)
        self._name = name
        self._validation = tuple(tensor.to(config.device) for tensor in load_split(dataset, "validation"))
        self._resume = resume

    def rate(self, step: int) -> float:
        """Return the cycle's learning rate at a step."""
        return learning_rate(step, self.config, self.batches.per_epoch)

    def validate(self, network: nn.Module) -> float:
        """Return the task's metric on the validation split."""
        images, targets = self._validation
        return evaluate(network, images, targets, self.task)

    def train(
        self,
        state: TrainState,
        history: tuple[History, ...],
        *,
        start: int,
        stop: int,
        rate: Rate | None = None,
        before_epoch: Callable[[int], None] | None = None,
        observer: Observer | None = None,
        penalty: Penalty | None = None,
        teacher: Teacher | None = None,
    ) -> tuple[History, ...]:
        """Train in place, from where a killed run stopped, and return the learning curve continued.

        Args:
            state: The network and its optimizer.
            history: The learning curve so far.
            start: First step.
            stop: One past the last step.
            rate: Learning rate by step, instead of the cycle's.
            before_epoch: Called with the step that an epoch begins at.
            observer: Sees the gradients of every step; what it has gathered survives a kill too.
            penalty: A regulariser; its state survives a kill too.
            teacher: Imitated beside the targets.
        """
        per_epoch = self.batches.per_epoch
        whole = (0, self.config.epochs * per_epoch) if self._name == "trunk" else (start, stop)  # the trunk's segments are parts of one cycle
        carried = {name: item for name, item in (("observer", observer), ("penalty", penalty)) if item}
        if progress := load_progress(self._resume):
            parts, facts = progress
            start, history = facts["step"], tuple(History.model_validate(line) for line in facts["history"])
            load_weights(state.network, parts["weights"])
            state.restore(parts.get("training", {}))
            for name, item in carried.items():
                item.restore(parts.get(name, {}))
        offset = 0 if self._name == "trunk" else stop % per_epoch  # a branch's epochs end with it, wherever it began
        while start < stop:
            end = min(((start - offset) // per_epoch + 1) * per_epoch + offset, stop)
            if before_epoch:
                before_epoch(start)
            loss = train_steps(
                state,
                self.batches,
                self.learning,
                start=start,
                stop=end,
                label=self._name,
                rate=rate or self.rate,
                observer=observer,
                penalty=penalty,
                teacher=teacher,
                span=whole,
            )
            figures = {"epoch": end / per_epoch, "loss": loss}
            if (end - offset) % per_epoch == 0:  # a segment that ends within an epoch is not worth a validation
                metric, reached = self.task.metric.name, self.validate(state.deployed)
                figures[metric] = reached
                history = (*history, History(step=end, epoch=end / per_epoch, phase=self._name, loss=loss, metric=metric, validation=reached))
            track({f"{self._name}/{what}": value for what, value in figures.items() if what != "epoch"}, end)
            report(f"{self._name:6}", done=end, total=whole[1], first=whole[0], unit="step", **figures)
            if end < stop:
                parts = {"weights": state.network.state_dict(), "training": state.tensors(), **{name: item.state() for name, item in carried.items()}}
                save_progress(self._resume, parts, {"step": end, "history": [line.model_dump() for line in history]})
            start = end
        return history
