"""A network's accuracy, and the statistics that its BatchNorms evaluate with."""

import torch
from torch import nn

from stages.training.batches import Batches


@torch.no_grad()
def top1(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images, 0-1, whose highest logit is the label's; small batches stay in a CPU's cache."""
    size = 64 if images.device.type == "cpu" else 1024
    training = network.training
    network.eval()
    hits = sum(
        (network(images[i : i + size].contiguous(memory_format=torch.channels_last)).argmax(1) == labels[i : i + size]).sum()
        for i in range(0, len(labels), size)
    )
    network.train(training)
    return int(hits) / len(labels)


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
