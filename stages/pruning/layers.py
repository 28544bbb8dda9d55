"""The layers that produce channels, whatever the layout of their weights."""

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Layer = _ConvNd | nn.Linear


def by_output(layer: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """Return a layer's weight, or what has its shape, as (output channels, weights of each).

    A transposed convolution holds (input channels, output channels / groups, ...), every other layer its outputs first.
    """
    if isinstance(layer, _ConvTransposeNd):
        tensor = tensor.reshape(layer.groups, -1, *tensor.shape[1:]).transpose(1, 2).flatten(0, 1)
    return tensor.flatten(1)


def channel_axis(module: nn.Module) -> int:
    """Return the dimension of a module's inputs and outputs that holds its channels."""
    return -1 if isinstance(module, nn.Linear | nn.LayerNorm) else 1


def num_outputs(layer: Layer) -> int:
    """Return the number of output channels that the weight has, whatever the layer's attributes say."""
    return len(by_output(layer, layer.weight))


def trained_weight(module: nn.Module) -> torch.Tensor:
    """Return the parameter that a module's weight is proportional to, channel by channel: of a weight norm its lengths, else the weight itself."""
    parametrised = getattr(module, "parametrizations", None)
    if parametrised is not None and "weight" in parametrised:
        first: torch.Tensor = next(iter(parametrised["weight"].parameters()))
        return first
    lengths = getattr(module, "weight_g", None)
    weight: torch.Tensor = module.weight if lengths is None else lengths  # type: ignore[assignment]
    return weight
