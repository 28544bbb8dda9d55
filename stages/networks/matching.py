"""Weights from outside matched to a network by name and shape."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.attention import Attention, rename_weights
from bonsai.stages.networks.config import WEIGHTS_KEY

SHOWN = 10
COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which old files lack."""
SAME_NETWORK = "let model.name and model.options name the network that the weights were saved from"


class Matched(NamedTuple):
    """Tensors that fit a network.

    Attributes:
        tensors: For every name of its state.
        prefix: What was taken away from the names in front.
        fresh: Layers that keep the network's own random weights, because theirs are for another number of outputs.
    """

    tensors: dict[str, torch.Tensor]
    prefix: str
    fresh: tuple[str, ...]


def match_weights(network: nn.Module, tensors: Mapping[str, torch.Tensor], num_outputs: int) -> Matched:
    """Match weights to a network.

    Names may have one prefix in common, such as ``module.`` (DataParallel) or ``model.`` (Lightning). A layer whose outputs alone are of another number,
    and which gives as many as the network does, keeps the network's own weights. Weights of torch's attention are given the names of its replacement.

    Args:
        network: The network; it is left as it is.
        tensors: Weights by name.
        num_outputs: Outputs of the network, such as its classes.

    Raises:
        ConfigError: Names are missing or are too many, or shapes differ elsewhere; they are listed.
    """
    own: dict[str, torch.Tensor] = network.state_dict()
    prefix = _common_prefix(tensors, own)
    given = {name.removeprefix(prefix): value for name, value in tensors.items()}
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            rename_weights(given, f"{name}.")
    missing = [name for name in own if name not in given and not name.endswith(COUNTER)]
    unexpected = [name for name in given if name not in own]
    if missing or unexpected:
        parts = [f"{what} {_listed(names)}" for what, names in (("missing:", missing), ("not in the network:", unexpected)) if names]
        allowed = f"the {len(own)} names of the network's state_dict(), and no others"
        raise ConfigError(describe(f"{WEIGHTS_KEY}: the weights are not of this network", given="; ".join(parts), allowed=allowed, fix=SAME_NETWORK))
    differing = [name for name, value in given.items() if value.shape != own[name].shape]
    fresh = tuple(dict.fromkeys(_layer(name) for name in differing))
    if any(not _is_head(given[name], own[name], num_outputs) for name in differing):
        raise _other_shapes(differing, given, own)
    return Matched({name: own[name] if _layer(name) in fresh else given.get(name, own[name]) for name in own}, prefix, fresh)


def _is_head(given: torch.Tensor, own: torch.Tensor, num_outputs: int) -> bool:
    """Return whether a tensor differs in its number of outputs alone: a layer inside of a network would differ from the next one's inputs too."""
    return given.shape[1:] == own.shape[1:] and own.ndim > 0 and own.shape[0] == num_outputs


def _other_shapes(differing: list[str], given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> ConfigError:
    shown = [f"{name} {tuple(given[name].shape)}, the network's {tuple(own[name].shape)}" for name in differing]
    first = next(name for name in own if own[name].ndim > 1)
    one, other = given[first].shape, own[first].shape
    if differing[0] == first and one[2:] == other[2:] and one[0] == other[0]:
        allowed = f"images of {one[1]} channels, as the weights were trained with"
        return ConfigError(
            describe(
                f"{WEIGHTS_KEY}: the first layer takes another number of channels",
                given=shown[0],
                allowed=allowed,
                fix=f"give the network images of {one[1]} channels: data.options.channels={one[1]} where the dataset has this option",
            )
        )
    allowed = "the network's own shapes, but for a last layer of another number of outputs"
    return ConfigError(describe(f"{WEIGHTS_KEY}: weights of other shapes than the network's", given=_listed(shown), allowed=allowed, fix=SAME_NETWORK))


def _common_prefix(names: Collection[str], own: Collection[str]) -> str:
    """Return the parts that all names begin with, as far as the network has no such names."""
    prefix = ""
    while not any(name.removeprefix(prefix) in own for name in names):
        parts = {name.removeprefix(prefix).partition(".")[0] for name in names if "." in name.removeprefix(prefix)}
        if len(parts) != 1 or any("." not in name.removeprefix(prefix) for name in names):
            return ""
        prefix += f"{parts.pop()}."
    return prefix


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
