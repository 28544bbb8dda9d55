"""Whether a network takes images of another size than those of its dataset."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import say_what
from bonsai.stages.networks.calling import copy_network, evaluating, outputs_of
from bonsai.stages.networks.inspection import random_images

IMAGES = 2


@torch.no_grad()
def require_resizable(network: nn.Module, image_shape: tuple[int, ...], smaller: tuple[int, ...]) -> None:
    """Run a network on images of its own size and on smaller ones, and compare the shapes of the outputs.

    Args:
        network: It is left as it was.
        image_shape: (channels, height, width).
        smaller: The same with less height and width.

    Raises:
        ConfigError: It does not run on the smaller images, and the layer where it stopped is named; or its outputs have another shape.
    """
    copied = copy_network(network)
    size, stopped = "x".join(map(str, smaller[1:])), list[str]()
    with evaluating(copied):
        expected = outputs_of(copied, random_images(IMAGES, image_shape)).shape
        try:
            with _naming_layers(copied, stopped):
                found = outputs_of(copied, random_images(IMAGES, smaller)).shape
        except ConfigError as error:
            raise _refusal(size, f"it stops in {stopped[-1] or 'its own forward'}: {say_what(error.__cause__ or error)}") from error
    if found != expected:
        raise _refusal(size, f"outputs {tuple(found)}, and {tuple(expected)} on images of the full size")


@contextmanager
def _naming_layers(network: nn.Module, running: list[str]) -> Iterator[None]:
    """Keep the names of the modules that run, the innermost last, and the network itself as an empty text; one that raises stays."""

    def enter(name: str) -> Any:
        return lambda _module, _args: running.append(name)

    def leave(_module: nn.Module, _args: Any, _found: Any) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(enter(name)) for name, module in network.named_modules()]
    handles += [module.register_forward_hook(leave) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refusal(size: str, given: str) -> ConfigError:
    return ConfigError(
        describe(
            f"prune.resolutions: the network cannot take images of {size}",
            given=given,
            allowed="a network whose layers take images of any size, such as one with global pooling before its classifier",
            fix="leave this size out, or choose a network without a fixed number of positions (Flatten before Linear, a table of positions)",
        )
    )
