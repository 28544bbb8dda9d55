"""Scales before any training: post-training quantisation (PTQ)."""

from collections.abc import Iterable

import torch
from torch import nn

from stages.quantization.layers import LoneBatchNorm, QuantConv2d, QuantLinear
from stages.quantization.quantizers import ActivationQuantizer


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
    training = network.training
    network.eval()
    for images in batches:
        network(images)
    network.train(training)
    for quantizer in quantizers:
        quantizer.calibrate()


def freeze_batchnorm(network: nn.Module) -> None:
    """From now on use BatchNorm's running statistics in training too."""
    for module in network.modules():
        if isinstance(module, QuantConv2d | LoneBatchNorm):
            module.frozen = True


def layers_of(network: nn.Module) -> list[QuantConv2d | QuantLinear]:
    """Return the quantised layers in the network's order."""
    return [m for m in network.modules() if isinstance(m, QuantConv2d | QuantLinear)]
