"""A network's metric, and the statistics that its BatchNorms evaluate with."""

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
import torch
from torch import nn

from bonsai.stages.data.feeding import Batch
from bonsai.stages.data.part import Part
from bonsai.stages.networks.calling import evaluating, outputs_of, training
from bonsai.stages.tasks.task import Task, join
from bonsai.stages.training.batches import Batches

FEW, MANY = 64, 1024
"""Samples in a batch. Few stay in a CPU's cache, and those of large images in a GPU's memory."""
LARGE = 2**17
"""Numbers of an image of which a GPU runs few at a time."""


def evaluate(network: nn.Module, images: torch.Tensor, targets: torch.Tensor, task: Task) -> float:
    """Return the task's metric on inputs and targets in memory, which lie where the network does."""
    size = _batch_size(images.shape[1:], images.device.type)
    return _metric_of(network, ((images[i : i + size], targets[i : i + size]) for i in range(0, len(images), size)), task)


def evaluate_part(network: nn.Module, part: Part, task: Task) -> float:
    """Return the task's metric on a part of a dataset, whose device is the network's.

    Raises:
        ConfigError: A sample cannot be made, or the network does not run.
    """
    return _metric_of(network, part.batches(_batch_size(part.source.spec.image_shape, part.device)), task)


def _batch_size(shape: Sequence[int], device: str) -> int:
    return FEW if device == "cpu" or prod(shape) > LARGE else MANY


@torch.no_grad()
def _metric_of(network: nn.Module, batches: Iterable[Batch], task: Task) -> float:
    with evaluating(network):
        return task.reduce(join([task.per_sample(to_arrays(outputs_of(network, inputs)), to_arrays(targets)) for inputs, targets in batches]))


def to_arrays(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as NumPy's, which has no bfloat16."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


@torch.no_grad()
def reestimate_batchnorm(network: nn.Module, batches: Batches, *, start: int, count: int) -> None:
    """Replace BatchNorm's running statistics by the average over `count` training batches from step `start` on."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    try:
        with training(network):
            for done in range(count):
                for norm in norms:
                    norm.momentum = 1 / (done + 1)  # an average of all; None, torch's word for it, is unknown to many a BatchNorm of somebody's own
                outputs_of(network, batches.batch(start + done)[0])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
