"""Scales before any training: post-training quantisation (PTQ)."""

from collections.abc import Iterable

import torch
from torch import fx, nn

from bonsai.stages.graph.trace import module_of
from bonsai.stages.networks.calling import evaluating, outputs_of
from bonsai.stages.quantization.layers import BatchNorm, LoneBatchNorm, QuantConvolution, QuantLinear
from bonsai.stages.quantization.quantizers import ActivationQuantizer


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set every scale to the one of least squared error.

    Args:
        network: Quantised network; its weights stay as they are.
        batches: Images (n, c, h, w) float32 of the training split.
    """
    quantizers = [m for m in network.modules() if isinstance(m, ActivationQuantizer)]
    for quantizer in quantizers:
        quantizer.samples = []
    for layer in layers_of(network):
        layer.calibrate()
    with evaluating(network):
        for images in batches:
            outputs_of(network, images)
    for quantizer in quantizers:
        quantizer.calibrate()


def freeze_batchnorm(network: nn.Module) -> None:
    """From now on use BatchNorm's running statistics in training too."""
    for module in network.modules():
        if isinstance(module, QuantConvolution | LoneBatchNorm):
            module.frozen = True


@torch.no_grad()
def settle_batchnorm(network: fx.GraphModule, batches: Iterable[torch.Tensor]) -> None:
    """Replace the running statistics of every BatchNorm that stands in the graph itself by their average over the batches.

    Args:
        network: Quantised network, some of whose layers were quantised while it was trained and are in float now.
        batches: Images (n, c, h, w) float32 of the training split.
    """
    norms = [module for node in network.graph.nodes if isinstance(module := module_of(network, node), BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with evaluating(network):  # those within quantised layers stay
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for done, images in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (done + 1)  # an average of all
            outputs_of(network, images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def layers_of(network: nn.Module) -> list[QuantConvolution | QuantLinear]:
    """Return the quantised layers in the network's order."""
    return [m for m in network.modules() if isinstance(m, QuantConvolution | QuantLinear)]
