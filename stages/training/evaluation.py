"""A network's accuracy, and the statistics that its BatchNorms evaluate with."""

import torch
from torch import nn

from bonsai.stages.networks.calling import evaluating, logits_of, training
from bonsai.stages.training.batches import Batches


@torch.no_grad()
def top1(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images, 0-1, whose highest logit is the label's; small batches stay in a CPU's cache."""
    size = 64 if images.device.type == "cpu" else 1024
    with evaluating(network):
        hits = sum((logits_of(network, images[i : i + size]).argmax(1) == labels[i : i + size]).sum() for i in range(0, len(labels), size))
    return int(hits) / len(labels)


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
                logits_of(network, batches.batch(start + done)[0])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
