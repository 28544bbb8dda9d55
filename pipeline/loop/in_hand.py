"""What a caller hands over, checked: the module, an input, a target and a budget."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record, from_overrides, validate
from bonsai.profiles.schema import HardwareProfile, Precision
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.forms import Form, Kind
from bonsai.stages.networks.registry import COMPILED, WRAPPERS, require_own_weights
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.quantization.config import QuantizeConfig

Example = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
"""A batch as a network gets it: one input, several by position, or several by name."""


class Settings(Record):
    """What a recipe says of a network, for a module in hand."""

    model: ModelConfig
    prune: PruneConfig = PruneConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    export: ExportConfig = ExportConfig()
    timing: TimingConfig = TimingConfig()


def require_bare(network: object, what: str) -> nn.Module:
    """Return a module that can be traced and cut.

    Raises:
        ConfigError: It is wrapped or compiled, or no module; or two of its layers share a parameter.
    """
    if isinstance(network, WRAPPERS) or hasattr(network, COMPILED):
        raise ConfigError(
            describe(
                f"{what} is in a wrapper, which can be neither traced nor cut",
                given=type(network).__name__,
                allowed="the network itself",
                fix="pass `model.module` of DataParallel and DistributedDataParallel, and compile the network after the cut",
            )
        )
    if not isinstance(network, nn.Module):
        raise ConfigError(describe(f"{what} is no network", given=type(network).__name__, allowed="a torch.nn.Module", fix="pass the network"))
    require_own_weights(network)
    return network


def require_float32(network: nn.Module, what: str) -> None:
    """Check that a network computes in FP32: exports and quantisers start from that.

    Raises:
        ConfigError: It has no parameters, or some in another format.
    """
    others = {str(each.dtype) for each in network.parameters() if each.is_floating_point()} - {"torch.float32"}
    if others or not any(True for _ in network.parameters()):
        fix = "call `.float()` on it; autocast may stay in your loop"
        raise ConfigError(describe(f"{what} has no weights in FP32", given=", ".join(sorted(others)) or "no parameters", allowed="float32 parameters", fix=fix))


def form_of(example: object) -> Form:
    """Return how a network takes its inputs, given an example batch.

    Raises:
        ConfigError: It is neither a tensor nor a tuple or dict of some, or they are no floating-point tensors of one batch.
    """
    kind: Kind = "dict" if isinstance(example, Mapping) else "tuple" if isinstance(example, tuple) else "tensor"
    named = dict(example) if isinstance(example, Mapping) else dict(enumerate(example if isinstance(example, tuple) else [example]))
    tensors = {str(name): each for name, each in named.items() if isinstance(each, torch.Tensor) and each.ndim > 1 and each.is_floating_point()}
    names_fit = kind != "dict" or all(isinstance(name, str) and name.isidentifier() for name in named)
    if not named or len(tensors) < len(named) or len({len(each) for each in tensors.values()}) > 1 or not names_fit:
        given = ", ".join(f"{name}: {_described(each)}" if kind != "tensor" else _described(each) for name, each in named.items())
        raise ConfigError(
            describe(
                "the example input is no batch",
                given=given or f"an empty {type(example).__name__}",
                allowed="a floating-point tensor (n, ...), a tuple of some for the arguments of forward(), or a dict of some by argument; all of one n",
                fix="pass a batch as the network gets it; embed whole numbers, such as token ids, outside of the network; give single numbers (n,) as (n, 1)",
            )
        )
    return Form(kind, tuple(tensors), tuple(tuple(each.shape[1:]) for each in tensors.values()))


def _described(value: object) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


def require_no_graph(network: nn.Module, inputs: Form) -> None:
    """Refuse a graph of torch.fx that takes several inputs: its layers would get other names.

    Raises:
        ConfigError: It is one.
    """
    if inputs.kind != "tensor" and isinstance(network, fx.GraphModule):
        problem, fix = "a graph of several inputs cannot be pruned or quantised", "pass the module that it was traced from"
        raise ConfigError(describe(problem, given=type(network).__name__, allowed="a module, or a graph of one tensor", fix=fix))


def profile_of(target: str, *, latency: float | None, latency_ms: float | None, precision: Precision | None) -> HardwareProfile:
    """Return the profile of a target, with a budget and a precision laid over it.

    Raises:
        ConfigError: The profile is not valid, or both budgets are given.
    """
    if latency is not None and latency_ms is not None:
        problem, fix = "a budget has one unit", "pass one of them: a fraction of the dense engine's latency, or milliseconds"
        raise ConfigError(describe(problem, given=f"latency={latency}, latency_ms={latency_ms}", allowed="one of both", fix=fix))
    asked: dict[str, Any] = {"budget.latency": latency, "budget.latency_ms": latency_ms, "target.precision": precision}
    found = {key: value for key, value in asked.items() if value is not None}
    if precision is not None:
        found["search_precision"] = False
    return load_profile(target, found)


def prune_config(settings: PruneConfig | Mapping[str, Any] | None) -> PruneConfig:
    """Return the settings of pruning, from a record or from values by dotted key, as a recipe's `prune` has them.

    Raises:
        ConfigError: A key is unknown, or a value is not allowed.
    """
    if settings is None:
        return PruneConfig()
    return settings if isinstance(settings, PruneConfig) else validate(PruneConfig, from_overrides(settings, "prune="))
