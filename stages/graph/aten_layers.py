"""Modules of torch's for ATen calls: what holds parameters, and what acts in training alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx, nn

Builder = Callable[[nn.Module | None, dict[str, Any]], nn.Module | None]
"""Makes a module from the module with the parameters and the arguments of the call; returns None if there is no such module."""


def name_of(node: fx.Node) -> str:
    """Return the name of the operator that a node calls, without its overload and its underscore."""
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0].rstrip("_")


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return what an operator is called with, by name, defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | node.kwargs
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


def _convolution(kind: type[nn.Conv1d] | type[nn.Conv2d], owner: nn.Module | None, arguments: dict[str, Any]) -> nn.Module:
    outputs, inputs, *kernel = _parameter(owner, "weight").shape
    options = {name: arguments[name] for name in ("stride", "padding", "dilation", "groups")}
    conv = kind(inputs * options["groups"], outputs, tuple(kernel), bias=False, device="meta", **options)  # type: ignore[arg-type]  # as many as dimensions
    return _with_parameters(conv, owner, arguments)


def _conv_transpose2d(owner: nn.Module | None, arguments: dict[str, Any]) -> nn.Module:
    inputs, outputs, height, width = _parameter(owner, "weight").shape
    options = {name: arguments[name] for name in ("stride", "padding", "output_padding", "dilation", "groups")}
    conv = nn.ConvTranspose2d(inputs, outputs * options["groups"], (height, width), bias=False, device="meta", **options)
    return _with_parameters(conv, owner, arguments)


def _linear(owner: nn.Module | None, arguments: dict[str, Any]) -> nn.Module:
    outputs, inputs = _parameter(owner, "weight").shape
    return _with_parameters(nn.Linear(inputs, outputs, bias=False, device="meta"), owner, arguments)


def _batch_norm(owner: nn.Module | None, arguments: dict[str, Any]) -> nn.Module | None:
    """Return a BatchNorm with what the owner holds: torch's own class, one of the user's that derives from it, or any that keeps such statistics."""
    kinds, rank = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}, arguments["rank"]
    if rank not in kinds or owner is None or getattr(owner, "running_mean", None) is None or getattr(owner, "running_var", None) is None:
        return None
    weight, bias = getattr(owner, "weight", None), getattr(owner, "bias", None)
    if set(owner._buffers) - {"running_mean", "running_var", "num_batches_tracked"} or (weight is None) != (bias is None):
        return None
    channels, momentum = len(owner.get_buffer("running_mean")), getattr(owner, "momentum", arguments["momentum"])
    made = kinds[rank](channels, arguments["eps"], momentum, affine=weight is not None, device="meta")
    made.weight, made.bias = weight, bias  # type: ignore[assignment]  # both or neither, as torch has it
    made._buffers = owner._buffers  # the dictionary itself: .to() puts others into it
    if "num_batches_tracked" not in made._buffers:
        vars(made)["num_batches_tracked"] = None
    return made


def _dropout(_: nn.Module | None, arguments: dict[str, Any]) -> nn.Module:
    return nn.Dropout(arguments["p"])


def _feature_dropout(_: nn.Module | None, arguments: dict[str, Any]) -> nn.Module:
    return nn.Dropout2d(arguments["p"])


LAYERS: dict[str, Builder] = {
    "conv1d": partial(_convolution, nn.Conv1d),
    "conv2d": partial(_convolution, nn.Conv2d),
    "conv_transpose2d": _conv_transpose2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "feature_dropout": _feature_dropout,
}
"""Builders by the name of the operator."""


def _with_parameters(made: nn.Module, owner: nn.Module | None, arguments: dict[str, Any]) -> nn.Module:
    made.weight = _parameter(owner, "weight")
    if arguments["bias"] is not None:
        made.bias = _parameter(owner, "bias")
    return made


def _parameter(owner: nn.Module | None, name: str) -> nn.Parameter:
    assert owner is not None, "weights that are no tensor of the network are refused before"
    return owner.get_parameter(name)
