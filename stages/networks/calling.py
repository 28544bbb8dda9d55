"""How a network is called that somebody else has written, and left as it was."""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import FAILURES, say_what, user_code
from bonsai.stages.memory import blame_memory


def outputs_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what a network makes of images: of a copy of its own, since a forward may change what it is given.

    Args:
        network: Network, already in the mode to call it in.
        images: (n, c, h, w), whose copy is laid out channels-last, or (n, ...).

    Raises:
        ConfigError: The network's code raises something.
    """
    with running(f"images {tuple(images.shape)}"):
        layout = torch.channels_last if images.ndim == 4 else torch.preserve_format
        found: torch.Tensor = network(images.clone(memory_format=layout))
    return found


def running(given: str = "") -> Any:
    """Return a context in which a network of the user's runs, forward or backward."""
    return user_code(
        "the network does not run on the dataset's images",
        given=given,
        allowed="a network for images of this shape, in training and in evaluation",
        fix="mend the line named above, or change model.options or data.options; what is trained already is kept",
    )


@contextmanager
def evaluating(network: nn.Module, but: Collection[nn.Module] = ()) -> Iterator[None]:
    """Put a network into evaluation mode, and the modules of `but` into training mode; at the end restore every module's mode, even after an error.

    `train()` is called before the modes are restored, so that a module can drop values that it caches for evaluation. timm's LeViT, for example,
    caches biases, which would be out of date after the weights change.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for module in but:
        module.training = True
    try:
        yield
    finally:
        network.train()
        for module, training in modes.items():
            module.training = training


@contextmanager
def training(network: nn.Module) -> Iterator[None]:
    """Put a network into training meanwhile; then every module is in its mode again, whatever was raised."""
    modes = {module: module.training for module in network.modules()}
    network.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def unfrozen(network: nn.Module) -> Iterator[None]:
    """Let every parameter need gradients meanwhile; then the frozen ones that are still there are frozen again, whatever was raised."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def copy_network(network: nn.Module) -> nn.Module:
    """Return a copy of a network.

    Tensors that a forward has left behind hang on its graph, which torch does not copy: their values alone are taken over.

    Raises:
        ConfigError: Something in the network cannot be copied; it is named.
    """
    left = {id(tensor): tensor.detach().clone() for _, tensor in _computed(network)}
    try:
        return copy.deepcopy(network, dict(left))
    except FAILURES as error:
        blame_memory(error)
        found = (
            f"{name}.{key}".lstrip(".")
            for name, module in network.named_modules()
            for key, value in vars(module).items()
            if key != "_modules" and not _copies(value, left)
        )
        raise ConfigError(
            describe(
                "the network cannot be copied",
                given=f"{', '.join(found) or type(network).__name__}: {say_what(error)}",
                allowed="a network that copy.deepcopy copies",
                fix="keep open files, locks and generators out of the network, or make them where they are needed",
            )
        ) from error


def computed_tensors(network: nn.Module) -> list[str]:
    """Return the names of tensors, kept as attributes, that are computed from parameters."""
    return [name for name, _ in _computed(network)]


def _computed(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    found: list[tuple[str, torch.Tensor]] = []

    def look(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            found.extend([(name, value)] if value.grad_fn is not None else [])
        elif isinstance(value, dict):
            for key, item in value.items():
                look(f"{name}[{key!r}]", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                look(f"{name}[{index}]", item)

    for module_name, module in network.named_modules():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_modules"):
                look(f"{module_name}.{key}".lstrip("."), value)
    return found


def _copies(value: object, left: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(left))
    except FAILURES as error:
        blame_memory(error)
        return False
    return True
