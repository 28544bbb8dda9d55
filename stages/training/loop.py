"""The training loop: from one optimizer step to another."""

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Protocol

import torch

from bonsai.stages.errors import TrainingDiverged
from bonsai.stages.networks.calling import outputs_of, running
from bonsai.stages.networks.several_outputs import auxiliary_outputs
from bonsai.stages.tasks.task import Learning
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.progress import report
from bonsai.stages.training.rates import Rate
from bonsai.stages.training.state import TrainState

CHECK_EVERY = 16
"""Number of steps between two checks of the loss, because each check makes a GPU wait."""


class Persistent(Protocol):
    """State of a training that must survive a kill: it is saved with every checkpoint."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that `restore` needs."""
        ...

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from an earlier state."""
        ...


class Observer(Persistent, Protocol):
    """Collects statistics of gradients during training."""

    def observe(self) -> None:
        """Record the gradients of the loss; called after backward."""
        ...


class Penalty(Persistent, Protocol):
    """A regulariser."""

    def add(self) -> None:
        """Add the penalty's gradient to the parameters' gradients."""
        ...


def train_steps(
    state: TrainState,
    batches: Batches,
    learning: Learning,
    *,
    start: int,
    stop: int,
    label: str,
    rate: Rate,
    observer: Observer | None = None,
    penalty: Penalty | None = None,
    teacher: Teacher | None = None,
    span: tuple[int, int] | None = None,
) -> float:
    """Train in place from step `start` up to `stop` and return the mean loss.

    Args:
        state: The network and its optimizer.
        batches: Source of the batches.
        learning: The task's loss.
        start: First step.
        stop: One past the last step.
        label: Name in the progress lines.
        rate: Learning rate by step.
        observer: Sees the gradients of the loss at every step.
        penalty: Adds its own gradient behind it.
        teacher: Imitated beside the targets.
        span: First and last step of the longer training that these steps are part of, as progress shows it.

    Raises:
        TrainingDiverged: The loss is no longer finite.
        ConfigError: The network's own code raises something.
    """
    network, config = state.network, state.config
    network.train()
    total = torch.zeros((), device=config.device)
    first, last = span or (start, stop)
    shown = time.monotonic()
    for step in range(start, stop):
        images, targets = batches.batch(step)
        with state.mixed_precision():
            with auxiliary_outputs() if config.loss.auxiliary else nullcontext(()) as others:
                found = outputs_of(network, images)
            loss = learning.loss(found, targets)
            for other in others:
                if other.shape == found.shape:
                    loss = loss + config.loss.auxiliary * learning.loss(other, targets)
            if teacher:
                loss = teacher.loss(images, found, loss, learning)
        with running():
            finite = state.backward(loss)
        if observer and finite:
            observer.observe()
        if penalty:
            penalty.add()
        state.step(rate(step))
        total += loss.detach()
        if (step + 1 - start) % CHECK_EVERY == 0 or step + 1 == stop:
            if not math.isfinite(float(total)):
                raise TrainingDiverged(f"the loss is no longer finite at step {step}: lower training.lr (now {config.lr:g})")
            if time.monotonic() - shown > 5 and step + 1 < stop:
                shown = time.monotonic()
                report(f"{label:6}", done=step + 1, total=last, first=first, unit="step", loss=float(total) / (step + 1 - start))
    return float(total) / max(stop - start, 1)
