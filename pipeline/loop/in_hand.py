"""What a caller hands over, checked: the module, an input, a target and a budget."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record, from_overrides, validate
from bonsai.profiles.schema import HardwareProfile, Precision
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import COMPILED, WRAPPERS, require_own_weights
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.quantization.config import QuantizeConfig


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


def shape_of(example: object) -> tuple[int, ...]:
    """Return the shape of one sample, of an example batch.

    Raises:
        ConfigError: It is not one tensor of a batch.
    """
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or not example.is_floating_point():
        given = f"{tuple(example.shape)}, {example.dtype}" if isinstance(example, torch.Tensor) else type(example).__name__
        raise ConfigError(
            describe(
                "the example input is no batch of images or series",
                given=given,
                allowed="a floating-point tensor (n, channels, height, width) or (n, channels, time)",
                fix="pass a batch as the network gets it; a network of several inputs cannot be pruned yet",
            )
        )
    return tuple(example.shape[1:])


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
