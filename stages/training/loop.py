"""The training loop: from one optimizer step to another, along one learning-rate cycle."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from stages.errors import TrainingDiverged
from stages.training.batches import Batches
from stages.training.config import TrainConfig
from stages.training.progress import report


class Observer(Protocol):
    """Gathers something from the gradients of a training."""

    def observe(self) -> None:
        """Look at the network between backward and the optimizer's step."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return what `restore` needs."""
        ...

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from an earlier state."""
        ...


def learning_rate(step: int, config: TrainConfig, per_epoch: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to zero at the cycle's end."""
    warmup, total = config.warmup_epochs * per_epoch, config.epochs * per_epoch
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return half_cosine(config.lr, step - warmup, max(total - warmup, 1))


def half_cosine(highest: float, step: float, steps: float) -> float:
    """Return the learning rate at `step` of a fall from `highest` to zero over `steps`."""
    return highest * 0.5 * (1 + math.cos(math.pi * step / steps))


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Return SGD over the network's trainable parameters; vectors (biases, BatchNorm, scales) are not decayed."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def train_steps(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    config: TrainConfig,
    *,
    start: int,
    stop: int,
    label: str,
    rate: Callable[[int], float],
    observer: Observer | None = None,
) -> float:
    """Train from step `start` up to `stop` and return the mean loss.

    Args:
        network: Trained in place.
        optimizer: Its learning rate is set at every step.
        batches: Source of the batches.
        config: The cycle.
        start: First step.
        stop: One past the last step.
        label: What progress is shown as.
        rate: Learning rate by step.
        observer: Sees the gradients of every step.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    network.train()
    total = 0.0
    shown = time.monotonic()
    for step in range(start, stop):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        images, labels = batches.batch(step)
        loss = functional.cross_entropy(network(images), labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if observer:
            observer.observe()
        optimizer.step()
        total += float(loss.detach())
        if not math.isfinite(total):
            raise TrainingDiverged(f"the loss is no longer finite at step {step}: lower training.lr (now {config.lr:g})")
        if time.monotonic() - shown > 5 and step + 1 < stop:
            shown = time.monotonic()
            report(label, done=step + 1 - start, total=stop - start, loss=total / (step + 1 - start))
    return total / max(stop - start, 1)


@torch.no_grad()
def top1(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int = 64) -> float:
    """Return the share of images, 0-1, whose highest logit is the label's; small batches stay in the CPU's cache."""
    training = network.training
    network.eval()
    hits = sum(
        int((network(images[i : i + batch_size].contiguous(memory_format=torch.channels_last)).argmax(1) == labels[i : i + batch_size]).sum())
        for i in range(0, len(labels), batch_size)
    )
    network.train(training)
    return hits / len(labels)


@torch.no_grad()
def reestimate_batchnorm(network: nn.Module, batches: Batches, *, start: int, count: int) -> None:
    """Replace BatchNorm's running statistics by the average over `count` training batches from step `start` on."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
    training = network.training
    network.train()
    for step in range(start, start + count):
        network(batches.batch(step)[0])
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def reproducible(config: TrainConfig) -> Iterator[None]:
    """Train with deterministic kernels and the recipe's number of threads, so that a repeated run ends bit-equal."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
