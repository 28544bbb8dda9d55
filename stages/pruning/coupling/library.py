"""Torch-Pruning's dependency graph: which channels leave together, in networks whose layers share channels one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from bonsai.stages.imports.leaving_out import left_out
from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import evaluating, unfrozen
from bonsai.stages.networks.several_outputs import outputs_as_they_are
from bonsai.stages.pruning.groups import Member
from bonsai.stages.pruning.layers import Layer

with left_out("timm"):  # Torch-Pruning imports it for a count of operations that nobody here asks for; it costs two seconds of CPU
    import torch_pruning as tp
    from torch_pruning.dependency.group import Group as LibraryGroup

MOST_POSITIONS = 1_000_000
"""Most entries of one group: each layer counts as often as Torch-Pruning visits it."""
MOST_ENDLESS = 3
"""Most groups that may grow without end before the rest is not asked for: each costs seconds, and Bonsai's labels need none of them."""
Members = tuple[Member, ...]


class Endless(Exception):
    """A group gets more and more entries."""


def library_groups(network: nn.Module, image_shape: tuple[int, ...]) -> list[Members]:
    """Return the members of every group that Torch-Pruning finds; none where it cannot follow the network.

    Its groups are wrong behind a channel shuffle and in a grouped convolution, and no error says so. At many splits it stops with an error. So
    `find_groups` uses only those of its groups that Bonsai's own labels confirm.

    Args:
        network: It is left as it was.
        image_shape: (channels, height, width).
    """
    try:
        with evaluating(network), unfrozen(network), outputs_as_they_are(), torch.enable_grad():  # it traces through autograd
            images = torch.zeros(2, *image_shape)
            graph = tp.DependencyGraph().build_dependency(network, (images,), forward_fn=lambda traced, inputs: traced(inputs[0].clone()), verbose=False)
    except FAILURES as error:
        blame_memory(error)
        return []
    names = {module: name for name, module in network.named_modules()}
    return [members for found in _full_groups(graph) for members in _members(graph, found, names)]


def _members(graph: tp.DependencyGraph, found: Any, names: dict[nn.Module, str]) -> Iterator[Members]:
    try:
        members = [
            Member(
                module=names[item.dep.target.module],
                side="out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in",
                indices=tuple(item.idxs),
                channels=tuple(item.root_idxs),
            )
            for item in found
            if item.dep.target.module in names
        ]
    except ValidationError:  # positions that are no whole numbers
        return
    yield tuple(dict.fromkeys(members))


def _full_groups(graph: tp.DependencyGraph) -> Iterator[Any]:
    """Yield the group of all channels of one layer of each group.

    This is like Torch-Pruning's `get_all_groups`, which stops at the first group that it cannot follow. If a group grows without end, the layers
    that it has reached are skipped: starting from them would fail in the same way. After `MOST_ENDLESS` of them no more groups are asked for.
    """
    visited: set[nn.Module] = set()
    endless = 0
    for root in [module for module in graph.module2node if isinstance(module, Layer)]:
        if root in visited:
            continue
        reached: list[tp.Dependency] = []
        try:
            pruner = graph.get_pruner_of_module(root)
            with _bounded(reached):
                found = graph.get_pruning_group(root, pruner.prune_out_channels, list(range(pruner.get_out_channels(root))))
        except FAILURES as error:
            blame_memory(error)
            if isinstance(error, Endless):
                endless += 1
                if endless == MOST_ENDLESS:
                    return
                visited.update(dep.target.module for dep in reached if graph.is_out_channel_pruning_fn(dep.handler))
            continue
        visited.update(dep.target.module for dep, _ in found if graph.is_out_channel_pruning_fn(dep.handler))
        yield found


@contextmanager
def _bounded(reached: list[tp.Dependency]) -> Iterator[None]:
    """Stop Torch-Pruning if a group gets more than `MOST_POSITIONS` entries: after some reshapes it goes round in circles without end.

    Entries are looked up in a set. Torch-Pruning's own list would take minutes for a network such as timm's RexNet.

    Args:
        reached: Receives the entries.

    Raises:
        Endless: The group has too many entries.
    """
    add, has, left = LibraryGroup.add_dep, LibraryGroup.has_pruning_op, MOST_POSITIONS
    followed: set[tuple[Any, ...]] = set()

    def count(group: Any, dep: tp.Dependency, idxs: list[Any]) -> None:
        nonlocal left
        left -= len(idxs)
        reached.append(dep)
        followed.add((dep.target, dep.handler, *idxs))
        if left < 0:
            raise Endless
        add(group, dep, idxs)

    LibraryGroup.add_dep = count
    LibraryGroup.has_pruning_op = lambda group, dep, idxs: (dep.target, dep.handler, *idxs) in followed
    try:
        yield
    finally:
        LibraryGroup.add_dep, LibraryGroup.has_pruning_op = add, has
