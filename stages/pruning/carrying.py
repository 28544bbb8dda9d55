"""Cuts a network during its training: the network, its averages and the optimizer's moments, all in place."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.edits.channels import carry, keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.registry import to_channels_last


def keep_in_training(network: nn.Module, optimizer: Optimizer, averages: Iterable[nn.Module], edit: KeepChannels) -> None:
    """Cut a network in training, its averages and its optimizer. Gradients are removed.

    The optimizer and its parameter groups stay the same objects, so schedulers and loss scalers continue with them. A moment has its
    parameter's shape and is cut like it. A step count has no dimensions and stays.

    Args:
        network: Network on any device. A parameter that loses channels becomes a new object.
        optimizer: Optimizer of the network; it may hold parameters of other networks too.
        averages: Networks of the same structure, such as a moving average.
        edit: Channels to keep, and blocks to leave out, whose parameters leave the optimizer.

    Raises:
        ConfigError: The optimizer's state cannot be cut, or an average or the edit belongs to another network. Nothing is changed then.
    """
    before = dict(network.named_parameters())
    shapes = _shapes(network)
    unknown = [name for (name, axis), kept in edit.by_axis().items() if axis >= len(shapes.get(name, ())) or kept[-1] >= shapes[name][axis]]
    unknown += [block for block in edit.dropped if not any(name.startswith(f"{block}.") for name in shapes)]
    if unknown:
        raise _refusal(
            "the cut belongs to another network",
            dict.fromkeys(unknown),
            "parameters and positions of this network",
            "build the network that the cut was made in",
        )
    for average in averages:
        if _shapes(average) != shapes:
            others = sorted({name for name, _ in _shapes(average).items() ^ shapes.items()})
            raise _refusal("an average has another structure than the network", others, "a copy of the network", "pass the averaged module itself")
    _require_moments(optimizer, before)
    for each in (network, *averages):
        laid_out = _is_channels_last(each)
        keep_channels(each, edit)
        each.zero_grad(set_to_none=True)
        if laid_out:
            to_channels_last(each)
    _carry_optimizer(optimizer, before, dict(network.named_parameters()), edit)


def _carry_optimizer(optimizer: Optimizer, before: Mapping[str, nn.Parameter], after: Mapping[str, nn.Parameter], edit: KeepChannels) -> None:
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in before.items()}
    for group in optimizer.param_groups:
        group["params"] = [after.get(names.get(each, ""), each) for each in group["params"] if not edit.drops(names.get(each, ""))]
    states = list(optimizer.state.items())
    optimizer.state.clear()
    for parameter, state in states:
        name = names.get(parameter, "")
        if edit.drops(name):
            continue
        live = after.get(name, parameter)
        optimizer.state[live] = state if live is parameter else {key: _carried(value, name, live, edit) for key, value in state.items()}


def _carried(value: Any, name: str, live: torch.Tensor, edit: KeepChannels) -> Any:
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    return torch.empty_like(live, dtype=value.dtype, device=value.device).copy_(carry({name: value}, edit)[name])  # laid out as its parameter


def _require_moments(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimizer whose state does not have its parameters' shapes: its channels are unknown."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            fits = value.shape in ((), parameter.shape) if isinstance(value, torch.Tensor) else not isinstance(value, list | tuple | dict)
            if parameter in names and not fits:
                shape = f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
                raise _refusal(
                    f"{type(optimizer).__name__} cannot continue after a cut",
                    [f"its `{key}` of {names[parameter]}, {shape}"],
                    "numbers, and moments of their parameter's shape",
                    "train with an optimizer such as SGD or AdamW",
                )


def _refusal(problem: str, given: Iterable[str], allowed: str, fix: str) -> ConfigError:
    return ConfigError(describe(problem, given=", ".join(given), allowed=allowed, fix=fix))


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in (*network.named_parameters(), *network.named_buffers())}


def _is_channels_last(network: nn.Module) -> bool:
    """Return whether four-dimensional weights are channels-last. Weights of one channel or one pixel are both layouts and do not count."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    return any(weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous() for weight in weights)
