"""One phase of training that survives being killed: trunk segment, branch or QAT."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from stages.artifacts import Dataset, History
from stages.training.batches import Batches, load_split
from stages.training.config import TrainConfig
from stages.training.loop import Observer, learning_rate, top1, train_steps
from stages.training.progress import report
from stages.training.resume import load_progress, save_progress


class Phase:
    """Trains a network from one step of the cycle to another, epoch by epoch.

    Args:
        name: Which phase, for the learning curve.
        dataset: Source of the training and validation images.
        config: The cycle; data order depends on its seed and the step alone.
        resume: Folder for the phase's own checkpoints, one after every epoch but the last.
    """

    def __init__(self, name: Literal["trunk", "branch", "qat"], dataset: Dataset, config: TrainConfig, resume: Path) -> None:
        self.batches = Batches(dataset, config)
        self._name = name
        self._validation = load_split(dataset, "validation")
        self._config = config
        self._resume = resume

    def validation_top1(self, network: nn.Module) -> float:
        """Return top-1 on the validation split, 0-1."""
        return top1(network, *self._validation)

    def train(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: tuple[History, ...],
        *,
        start: int,
        stop: int,
        rate: Callable[[int], float] | None = None,
        before_epoch: Callable[[int], None] | None = None,
        observer: Observer | None = None,
    ) -> tuple[History, ...]:
        """Train in place, from where a killed run stopped, and return the learning curve continued.

        Args:
            network: Trained in place.
            optimizer: Of the network's parameters.
            history: The learning curve so far.
            start: First step.
            stop: One past the last step.
            rate: Learning rate by step, instead of the cycle's.
            before_epoch: Called with the step that an epoch begins at.
            observer: Sees the gradients of every step; what it has gathered survives a kill too.
        """
        per_epoch = self.batches.per_epoch
        rate = rate or (lambda step: learning_rate(step, self._config, per_epoch))
        facts = load_progress(self._resume, network, optimizer, observer)
        if facts:
            start = facts["step"]
            history = tuple(History.model_validate(line) for line in facts["history"])
        while start < stop:
            end = min((start // per_epoch + 1) * per_epoch, stop)
            if before_epoch:
                before_epoch(start)
            loss = train_steps(network, optimizer, self.batches, self._config, start=start, stop=end, label=self._name, rate=rate, observer=observer)
            figures = {"epoch": end / per_epoch, "loss": loss}
            if end % per_epoch == 0:  # a segment that ends within an epoch is not worth a validation
                figures["top1"] = self.validation_top1(network)
                history = (*history, History(step=end, epoch=end / per_epoch, phase=self._name, loss=loss, validation_top1=figures["top1"]))
            report(f"{self._name:6}", done=end, total=stop, unit="step", **figures)
            if end < stop:
                save_progress(self._resume, network, optimizer, observer, {"step": end, "history": [h.model_dump() for h in history]})
            start = end
        return history
