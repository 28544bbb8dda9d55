"""Networks by name, and how one is built from its config."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.declared import in_place, places_of
from bonsai.stages.imports.reading import warning_of_undeclared
from bonsai.stages.imports.registry import resolve
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.networks.attention import replace_attention
from bonsai.stages.networks.calling import evaluating, outputs_of
from bonsai.stages.networks.config import FILES, ModelConfig
from bonsai.stages.networks.factories import FACTORIES, LIBRARIES, of_library
from bonsai.stages.networks.held import HELD, build_held
from bonsai.stages.networks.libraries import module_of
from bonsai.stages.networks.seeding import seeded
from bonsai.stages.networks.several_outputs import named_outputs, select_outputs
from bonsai.stages.tasks.task import DataSpec, Learning

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)
COMPILED = "_orig_mod"
"""Attribute by which torch.compile's wrapper is recognised; importing its class takes seconds."""


def build_network(config: ModelConfig, image_shape: tuple[int, ...], num_classes: int, *, seed: int | None = None) -> nn.Module:
    """Build the dense network with the initial weights of its seed. Attention of torch is replaced by one that can lose heads.

    Args:
        config: Which network.
        image_shape: (channels, height, width).
        num_classes: Number of classes.
        seed: Of all random numbers that its code draws, where it is not to be the config's.

    Raises:
        ConfigError: The network does not exist, refuses its options, or its code raises something; or the files that it was built from have changed.
    """
    given = f"in_channels={image_shape[0]}, num_classes={num_classes}" + "".join(f", {key}={value!r}" for key, value in config.options.items())
    options = in_place(config.options, config.files, config.content, FILES)
    watched = warning_of_undeclared(config.name, FILES, places_of(config.files, config.content, FILES))
    with seeded(config.seed if seed is None else seed), watched:
        factory = _factory_of(config.name)
        with user_code(
            f"model.options do not fit model {config.name!r}",
            given=given,
            allowed="a factory that takes in_channels, num_classes and what model.options names",
            fix="let the factory take in_channels and num_classes, and model.options name its other keyword arguments; or mend the line named above",
        ):
            network: nn.Module = factory(in_channels=image_shape[0], num_classes=num_classes, **options)
    if isinstance(network, WRAPPERS) or hasattr(network, COMPILED):
        raise ConfigError(
            describe(
                f"model {config.name!r} is a network in a wrapper, which can be neither traced nor cut",
                given=type(network).__name__,
                allowed="the network itself",
                fix="let the factory return it without torch.compile, torch.jit or DataParallel",
            )
        )
    if not isinstance(network, nn.Module):
        raise ConfigError(
            describe(
                f"model {config.name!r} is no network", given=type(network).__name__, allowed="a torch.nn.Module", fix="let the factory return the network"
            )
        )
    replace_attention(network)
    return select_outputs(network, config.outputs) if config.outputs else network


def _factory_of(name: str) -> Callable[..., Any]:
    """Return what builds a network of a name.

    Raises:
        ConfigError: There is no such network.
    """
    if name.startswith(HELD):
        return lambda *, in_channels, num_classes: build_held(name)
    found = of_library(name)
    if found is None or name in FACTORIES:
        return cast(Callable[..., Any], resolve(name, FACTORIES, "model", also=[f"{library}/NAME" for library in LIBRARIES]))
    return partial(module_of(found.library).make, found.model)


@torch.no_grad()
def require_outputs(network: nn.Module, spec: DataSpec, learning: Learning) -> None:
    """Run a network once on two black images.

    Raises:
        ConfigError: It fails, or gives what the task cannot train.
    """
    with evaluating(network):
        found = outputs_of(network, torch.zeros(2, *spec.image_shape))
    named = named_outputs(found)
    if named is not None:
        raise ConfigError(
            describe(
                "the network gives several outputs, and nothing says which of them the task uses",
                given=f"{type(found).__name__} of {', '.join(named)}",
                allowed="a tensor, or several outputs of which model.outputs names some",
                fix=f"set model.outputs, for example [{next(iter(named), 'out')}]",
            )
        )
    learning.require_outputs(found, spec, samples=2, mode="evaluation")


def require_own_weights(network: nn.Module) -> None:
    """Refuse layers that share a parameter: a checkpoint holds every parameter once.

    Raises:
        ConfigError: Two names stand for one parameter.
    """
    first: dict[nn.Parameter, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if first.setdefault(parameter, name) != name:
            problem = "two layers of the network share a parameter"
            raise ConfigError(
                describe(problem, given=f"{first[parameter]} and {name}", allowed="a parameter of its own for each", fix="untie them, or choose another model")
            )


def to_channels_last(network: nn.Module) -> None:
    """Lay four-dimensional weights out channels-last, which convolutions on a CPU are fastest in; done after every cut."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
