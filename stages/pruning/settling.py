"""Changes a copy of an untrained network so that its outputs depend on the image, as after training. Trial cuts are made on this copy.

An untrained network can hide a wrong cut: its last gamma or classifier may be zero, its branches may be scaled by 1e-6, its BatchNorm statistics
may not fit its inputs, or its signals may fade from layer to layer. The copy has none of these.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bonsai.stages.networks.calling import evaluating
from bonsai.stages.networks.seeding import seeded
from bonsai.stages.pruning.layers import Layer, channel_axis

SMALL = 0.01
"""A parameter with no larger value hides the layers before it."""
FADED = 1e-4
"""A layer is not rescaled if its outputs vary by less than this fraction of the largest: only rounding errors would be amplified."""


@torch.no_grad()
def wake(network: nn.Module, images: torch.Tensor) -> None:
    """Give small parameters random values and every layer outputs of mean 0 (where it has a bias) and variance 1, in place.

    Args:
        network: A copy, to try something on.
        images: (n, c, h, w), different from one another.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.is_floating_point() and parameter.numel() and parameter.abs().max() <= SMALL:
            parameter.normal_(std=0.1, generator=generator)
    awake: set[nn.Module] = set()

    def balance(layer: Layer, inputs: tuple[Any, ...], output: Any) -> Any:
        if layer in awake or not isinstance(output, torch.Tensor) or type(layer).forward not in PLAIN_FORWARDS:
            return None
        awake.add(layer)
        others = [axis for axis in range(output.ndim) if axis != channel_axis(layer) % output.ndim]
        mean, deviation = output.mean(others), output.var(others, correction=0).mean().sqrt()
        if not deviation > FADED * output.abs().max():
            return None
        layer.weight.data.div_(deviation)
        if layer.bias is not None:
            layer.bias.data.sub_(mean).div_(deviation)
        return layer.forward(*inputs)

    hooks = [module.register_forward_hook(balance, prepend=True) for module in network.modules() if isinstance(module, Layer)]
    try:
        settle(network, images)
    finally:
        for hook in hooks:
            hook.remove()


PLAIN_FORWARDS = {layer.forward for layer in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)}
"""Layers whose outputs are proportional to their weights. Others, such as those that standardise their weights, are not rescaled."""


def has_batchnorm(network: nn.Module) -> bool:
    """Whether a network has BatchNorms, whose statistics keep its signals from fading."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


@torch.no_grad()
def settle(network: nn.Module, images: torch.Tensor) -> None:
    """Replace BatchNorm's running statistics, in place, by those of these images."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1  # the last batch alone
    try:
        with evaluating(network, but=norms), seeded(0):  # what else acts in training is left alone: power iterations, counters
            network(images.clone())
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
