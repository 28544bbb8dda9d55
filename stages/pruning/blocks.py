"""Finds the residual blocks that may be left out as a whole: their skip connection remains."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.inspection import random_inputs
from bonsai.stages.networks.layer_names import matches
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.equality import outputs
from bonsai.stages.pruning.groups import Group, blocks_of
from bonsai.stages.pruning.settling import wake

IMAGES = 2


def with_blocks(network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> tuple[Group, ...]:
    """Return the groups, each with the residual block that it is inside of.

    A residual block is a module that returns its input where all of its parameters are zero: bit for bit, on what the network gives it. A block with a
    convolution on its skip connection is none, and neither is one behind whose addition stands an activation that changes its input. Of blocks inside of
    each other the innermost counts.

    Args:
        network: The network that the groups were found in; it is left as it was.
        groups: Its groups.
        image_shape: (channels, height, width), or (channels, time).
    """
    inside = {name: tuple(group.name for group in groups if _within(group, name)) for name, _ in network.named_modules() if name}
    candidates = {name for name, some in inside.items() if some}
    found = set(_residual(network, candidates, image_shape)) if candidates else set()
    innermost = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    block_of = {group: name for name in innermost for group in inside[name]}
    return tuple(group.model_copy(update={"block": block_of[group.name]}) if group.name in block_of else group for group in groups)


def groups_with_blocks(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[Group, ...]:
    """Return the groups of a network on any device, each with the residual block that it is inside of."""
    copied = copy_network(network).cpu()
    return with_blocks(copied, find_groups(copied, image_shape), image_shape)


def droppable(groups: tuple[Group, ...], free: Collection[str], limited: Iterable[str], network: nn.Module) -> tuple[Group, ...]:
    """Return the groups, without the blocks that must stay.

    Args:
        groups: All groups, with their blocks.
        free: Names of those that may be pruned: a block with any other stays.
        limited: Globs over layers that must keep some of their channels: a block with one of them stays.
        network: Network in which the groups were found.
    """
    names, limited = [name for name, _ in network.named_modules()], tuple(limited)
    stay = {group.block for group in groups if group.name not in free}
    for block in blocks_of(groups):
        inner = [name for name in names if name.startswith(f"{block}.")]
        if any(matches(name, glob) for name in inner for glob in limited):
            stay.add(block)
    return tuple(group.model_copy(update={"block": ""}) if group.block in stay else group for group in groups)


def _within(group: Group, module: str) -> bool:
    lead = f"{module}."
    return bool(group.tensors) and all(each.tensor.startswith(lead) for each in group.tensors) and all(c.attribute.startswith(lead) for c in group.counts)


def _residual(network: nn.Module, candidates: set[str], image_shape: tuple[int, ...]) -> Iterator[str]:
    """Yield the names of those modules that return their only input where their parameters are zero."""
    images = random_inputs(IMAGES, network, image_shape)
    copied = copy_network(network)
    wake(copied, images)
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {name: [] for name in candidates}
    handles = [
        copied.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, kwargs, name=name: calls[name].append((args, kwargs)), with_kwargs=True, prepend=True
        )
        for name in candidates
    ]
    outputs(copied, images)
    for handle in handles:
        handle.remove()
    copied.eval()
    for name, made in calls.items():
        (args, kwargs), *others = made or [((), {})]
        if not others and not kwargs and len(args) == 1 and isinstance(args[0], torch.Tensor) and _returns_input(copied.get_submodule(name), args[0]):
            yield name


@torch.no_grad()
def _returns_input(module: nn.Module, given: torch.Tensor) -> bool:
    before = [parameter.clone() for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.zero_()
    try:
        found = module(given.clone())
    except FAILURES as error:  # such as a weight that is computed from others
        blame_memory(error)
        return False
    finally:
        for parameter, value in zip(module.parameters(), before, strict=True):
            parameter.copy_(value)
    return isinstance(found, torch.Tensor) and torch.equal(found, given)
