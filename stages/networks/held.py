"""Networks that a program holds, as inputs of stages. They are known by what they compute, whatever weights they have.

config = hold(network)                       # ModelConfig(name="held/3f2a...")
build_network(config, image_shape, 0)        # a copy with new weights, in this process alone
"""

import inspect
import math
from functools import cache
from hashlib import sha256
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.several_outputs import selected_outputs

HELD = "held/"
PLAIN = (int, float, str, bool, type(None))
_networks: dict[str, nn.Module] = {}
"""Copies of the networks that are held, by name."""


def hold(network: nn.Module) -> ModelConfig:
    """Return the config of a network: whatever builds it gets a copy with new weights.

    Args:
        network: On any device; it is left as it was.

    Raises:
        ConfigError: It cannot be copied.
    """
    name = f"{HELD}{structure_of(network)[:16]}"
    if name not in _networks:
        _networks[name] = copy_network(network).cpu()
    return ModelConfig(name=name)


def build_held(name: str) -> nn.Module:
    """Return a copy of a network that is held, with new weights from torch's random numbers.

    Raises:
        ConfigError: This process holds no network of the name.
    """
    if name not in _networks:
        raise ConfigError(
            describe(
                "this network was held by a program, which alone can build it",
                given=name,
                allowed="the process that the network lives in",
                fix="load a package with `bonsai.load(FOLDER)`, or name the network in a recipe",
            )
        )
    network = copy_network(_networks[name])
    _forget(network)
    return network


def structure_of(network: nn.Module) -> str:
    """Return the sha256 of what a network computes but for its weights: code and plain attributes of its modules, sizes of its tensors, selected outputs."""
    lines: list[object] = []
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if key != "training" and _is_plain(value)}
        code = _code_of(type(module))  # type: ignore[arg-type]  # classes can be hashed
        lines += [name, type(module).__qualname__, code, module.extra_repr(), sorted(plain.items())]
    lines += [(name, tuple(value.shape), str(value.dtype)) for name, value in network.state_dict().items()]
    lines += selected_outputs(network)
    return sha256(repr(lines).encode()).hexdigest()


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(_is_plain(each) for each in value))


@cache
def _code_of(kind: type) -> str:
    try:
        return sha256(inspect.getsource(kind).encode()).hexdigest()
    except (OSError, TypeError):  # a class that was typed at a prompt
        return kind.__module__


@torch.no_grad()
def _forget(network: nn.Module) -> None:
    """Give a network weights that do not depend on those it had."""
    for parameter in (each for each in network.parameters() if each.is_floating_point()):
        if parameter.ndim > 1:
            parameter.normal_(std=1 / math.sqrt(max(parameter[0].numel(), 1)))
        else:
            parameter.fill_(0)
    for module in network.modules():
        if isinstance(module, _NormBase):
            module.reset_running_stats()
        if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm) and module.weight is not None:
            module.weight.fill_(1)
