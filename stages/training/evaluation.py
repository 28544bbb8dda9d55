"""A network's metric, and the statistics that its BatchNorms evaluate with."""

import numpy as np
import torch
from torch import nn

from bonsai.stages.networks.calling import evaluating, outputs_of, training
from bonsai.stages.tasks.task import Task, join
from bonsai.stages.training.batches import Batches

LARGE = 2**17
"""Numbers of an image of which a GPU runs few at a time."""


@torch.no_grad()
def evaluate(network: nn.Module, images: torch.Tensor, targets: torch.Tensor, task: Task) -> float:
    """Return the task's metric; small batches stay in a CPU's cache, and those of large images in a GPU's memory."""
    size = 64 if images.device.type == "cpu" or images[0].numel() > LARGE else 1024
    with evaluating(network):
        parts = [task.per_sample(to_arrays(outputs_of(network, images[i : i + size])), to_arrays(targets[i : i + size])) for i in range(0, len(images), size)]
    return task.reduce(join(parts))


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
