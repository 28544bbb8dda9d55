"""Layers that stay in float within a quantised network."""

from collections.abc import Iterable

from torch import nn

from profiles.errors import ConfigError, describe
from stages.artifacts import QuantizerState
from stages.models.layer_names import matching


def quantizable(network: nn.Module) -> tuple[str, ...]:
    """Return the names of a float network's convolutions and linear layers."""
    return tuple(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear))


def layers_to_keep(network: nn.Module, globs: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the layers that a recipe leaves in float, in the network's order.

    Args:
        network: A float network.
        globs: Of `quantize.keep_float`.

    Raises:
        ConfigError: A glob matches no layer, or nothing is left to quantise.
    """
    names = quantizable(network)
    found = {name for glob in globs for name in matching(glob, names, problem="quantize.keep_float: no layer that can be quantised has this name")}
    if found == set(names):
        given, fix = ", ".join(globs), "keep fewer layers in float, or set the profile's target.precision to fp32"
        raise ConfigError(describe("quantize.keep_float leaves nothing to quantise", given=given, allowed="at least one layer that is quantised", fix=fix))
    return tuple(name for name in names if name in found)


def count_float_convolutions(network: nn.Module, quantizers: QuantizerState | None) -> int:
    """Return how many convolutions of a quantised network are in float on purpose."""
    kept = quantizers.kept_float if quantizers else ()
    return sum(isinstance(network.get_submodule(name), nn.Conv2d | nn.ConvTranspose2d) for name in kept)
