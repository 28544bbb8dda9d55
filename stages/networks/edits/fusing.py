"""Networks that are trained in branches and run fused: RepVGG, MobileOne, FastViT, RepViT and others alike.

Their modules bring a method of their own that turns branches into one layer, such as `reparameterize()`. It is found by its name, as timm finds it.
"""

import inspect
from collections.abc import Iterator

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import FAILURES, say_what
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.records import Fuse
from bonsai.stages.pruning.equality import outputs

METHODS = ("fuse", "reparameterize", "switch_to_deploy")
"""Names of the methods, in the order in which one is looked for. They return the module's successor, or change the module in place."""

TOLERANCE = 1e-4
"""Largest difference between a network and the fused one, relative to the largest output. Rounding in double precision causes about 1e-13."""


class Unfusable(ConfigError):
    """A network cannot be fused by its own methods, or computes something else then."""


def can_fuse(module: nn.Module) -> bool:
    """Return whether a module has a method that fuses it."""
    return _method(module) != ""


def fusion_of(network: nn.Module) -> Fuse | None:
    """Return the edit that fuses a network, or None where it has no branches. The network is left as it was.

    Raises:
        Unfusable: A method of the network fails.
    """
    if not any(can_fuse(module) for name, module in network.named_modules() if name):
        return None
    modules = tuple(_walk(copy_network(network)))
    return Fuse(modules=modules) if modules else None


def fuse(network: nn.Module, edit: Fuse) -> None:
    """Fuse a network in place, by its running statistics. Parameters that stay keep whether they are trained; new ones are trained.

    Raises:
        Unfusable: A method of the network fails, or a module has none.
    """
    for name in edit.modules:
        _fuse(network, name)


def require_same_fused(network: nn.Module, edit: Fuse, images: torch.Tensor) -> float:
    """Return how far the outputs of the fused network are from those of the network, in evaluation, relative to the largest.

    They are compared in double precision, since rounding alone may reach 1e-3 in single precision; in single where the network's code runs in no other.

    Args:
        network: It is left as it was.
        edit: What to fuse.
        images: (n, c, h, w).

    Raises:
        Unfusable: The difference exceeds `TOLERANCE`, or the network cannot be fused.
    """
    try:
        difference = _difference(network, edit, images.double())
    except FAILURES as error:
        blame_memory(error)
        difference = _difference(network, edit, images)
    if not difference <= TOLERANCE:  # NaN is refused too
        raise Unfusable(
            describe(
                "the fused network computes something else than its branches",
                given=f"a difference of {difference:.1e} of the largest output, after {len(edit.modules)} modules were fused, {edit.modules[0]} first",
                allowed=f"{TOLERANCE:.0e} at most, in evaluation",
                fix="mend those methods, or rename those that do something else",
            )
        )
    return difference


def _difference(network: nn.Module, edit: Fuse, images: torch.Tensor) -> float:
    """Return the largest difference of outputs over the largest output, all in the precision of the images."""
    branched, fused = (copy_network(network).to(images.dtype) for _ in range(2))
    before = torch.get_default_dtype()
    torch.set_default_dtype(images.dtype)  # of the layers that the methods make
    try:
        fuse(fused, edit)
    finally:
        torch.set_default_dtype(before)
    expected, found = outputs(branched, images), outputs(fused, images)
    return float((expected - found).abs().max()) / max(float(expected.abs().max()), 1e-12)


def _walk(network: nn.Module, name: str = "") -> Iterator[str]:
    """Fuse the outermost modules that can be, then what is left inside of them; return their names in this order."""
    for child, module in list(network.get_submodule(name).named_children()):
        inner = f"{name}.{child}".lstrip(".")
        if can_fuse(module):
            branched = set(module.state_dict())
            _fuse(network, inner)
            if network.get_submodule(inner) is not module or set(module.state_dict()) != branched:  # it was not fused when it was built
                yield inner
        yield from _walk(network, inner)


@torch.no_grad()
def _fuse(network: nn.Module, name: str) -> None:
    module = network.get_submodule(name)
    method, modes = _method(module), {each: each.training for each in module.modules()}
    trained = {id(parameter): parameter.requires_grad for parameter in network.parameters()}
    module.eval()  # some methods ask for it
    try:
        found = getattr(module, method)()
    except FAILURES as error:
        blame_memory(error)
        raise Unfusable(
            describe(
                f"module {name} of the network cannot be fused",
                given=f"{type(module).__name__}.{method or METHODS[1]}(): {say_what(error)}",
                allowed="a method that turns the module's branches into one layer",
                fix="mend that method, or rename it if it does something else",
            )
        ) from error
    if isinstance(found, nn.Module) and found is not module:
        place, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(place), attribute, found)
    for each in network.get_submodule(name).modules():
        each.training = modes.get(each, modes[module])
    for parameter in network.parameters():  # timm's methods freeze what they leave
        parameter.requires_grad_(trained.get(id(parameter), True))


def _method(module: nn.Module) -> str:
    """Return the name of a module's method that fuses it and needs no argument; nothing where it has none."""
    for name in METHODS:
        method = getattr(type(module), name, None)
        if inspect.isfunction(method) and all(
            parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            for parameter in list(inspect.signature(method).parameters.values())[1:]
        ):
            return name
    return ""
