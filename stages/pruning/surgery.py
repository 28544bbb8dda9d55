"""Finding coupled channels and cutting them out, with Torch-Pruning's dependency graph.

Torch-Pruning is given explicit channel indices, never ratios; selection and rounding are Bonsai's own.
"""

import copy
from collections.abc import Callable
from typing import Any, get_args

import torch
import torch_pruning as tp
from torch import nn

from stages.pruning.groups import Group, Kept, Member
from stages.pruning.layers import Layer, channel_axis, num_outputs

TOLERANCE = 1e-4
"""Largest difference between zeroing and removing channels, relative to the largest output (fp32)."""


def find_groups(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Group, ...]:
    """Return the groups of channels that may be removed; those that make up the logits are left out.

    Args:
        network: A dense or pruned network; it is left as it was.
        image_shape: (channels, height, width).
    """
    graph = _dependency_graph(network, image_shape)
    names = {module: name for name, module in network.named_modules()}
    groups = []
    for found in graph.get_all_groups(root_module_types=list(get_args(Layer))):
        if any(graph.is_out_channel_pruning_fn(dep.handler) and not dep.target.outputs for dep, _ in found):
            continue
        members = tuple(
            Member(
                module=names[item.dep.target.module],
                side="out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in",
                indices=tuple(item.idxs),
                channels=tuple(item.root_idxs),
            )
            for item in found
            if item.dep.target.module in names
        )
        width = len(found[0].idxs)
        groups.append(Group(name=_first_producer(network, members, width), width=width, members=tuple(dict.fromkeys(members))))
    order = {name: position for position, name in enumerate(names.values())}
    return tuple(sorted(groups, key=lambda group: order[group.name]))


def cut(network: nn.Module, groups: tuple[Group, ...], kept: Kept, image_shape: tuple[int, int, int]) -> None:
    """Remove from `network`, in place, every channel that `kept` does not name.

    Args:
        network: The dense network that `groups` were found in.
        groups: From `find_groups`.
        kept: Channels to keep by group name, ascending; a group without an entry stays whole.
        image_shape: (channels, height, width).

    Raises:
        ValueError: A group does not exist, would be emptied, or a channel does not exist; layers share a weight; or the widths
            that were cut are not those that were asked for.
    """
    by_name = {group.name: group for group in groups}
    for name, channels in kept.items():
        if name not in by_name:
            raise ValueError(f"cannot cut group {name!r}: the network has {', '.join(by_name)}")
        if not channels or not set(channels) <= set(range(by_name[name].width)):
            raise ValueError(f"cannot cut group {name!r} to channels {channels}: keep at least one of 0..{by_name[name].width - 1}")
    trainable = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    graph = _dependency_graph(network, image_shape)
    for name, channels in kept.items():
        removed = sorted(set(range(by_name[name].width)) - set(channels))
        if removed:
            root = _layer(network, name)
            prune = tp.prune_linear_out_channels if isinstance(root, nn.Linear) else tp.prune_conv_out_channels
            graph.get_pruning_group(root, prune, removed).prune()
    for name, parameter in network.named_parameters():
        if name not in trainable:
            raise ValueError(f"cannot cut {name}: other layers share it")
        parameter.requires_grad_(trainable[name])
    for name, group in by_name.items():
        requested, achieved = len(kept.get(name, range(group.width))), num_outputs(_layer(network, name))
        if requested != achieved:
            raise ValueError(f"group {name!r} was to keep {requested} channels and has {achieved}: the network couples channels within it")


def check_cut(dense: nn.Module, pruned: nn.Module, groups: tuple[Group, ...], kept: Kept, image_shape: tuple[int, int, int]) -> float:
    """Return how far removing channels differs from zeroing them, relative to the largest output.

    Raises:
        ValueError: The difference exceeds `TOLERANCE`: the network's coupling was not understood.
    """
    zeroed = copy.deepcopy(dense).eval()
    with torch.no_grad():
        for group in groups:
            removed = set(range(group.width)) - set(kept.get(group.name, range(group.width)))
            for member in (m for m in group.members if m.side == "out"):
                positions = [i for i, c in zip(member.indices, member.channels, strict=True) if c in removed]
                if positions:
                    zeroed.get_submodule(member.module).register_forward_hook(_zeroing(positions))
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(4, *image_shape, generator=generator)
        training = pruned.training
        expected, found = zeroed(images), pruned.eval()(images)
        pruned.train(training)
    error = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not error <= TOLERANCE:  # NaN is refused too
        raise ValueError(
            f"removing channels is not the same as zeroing them: the network reshapes, groups or mixes channels "
            f"(relative difference {error:.1e}, allowed {TOLERANCE:.0e})"
        )
    return error


def refused_groups(network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, int, int]) -> dict[str, str]:
    """Return the groups that cannot be cut safely, each with the reason: every group is cut on trial, alone.

    Torch-Pruning cuts the wrong channels behind a channel shuffle or in a grouped convolution without a word, and other
    reshapes fail. The trial keeps a run of channels that no block of equal size starts or ends with: a regular choice fits a
    grouped convolution by luck.
    """
    refused = {}
    dense = _without_zeros(network)
    for group in groups:
        partial = [m.module for m in group.members if len(set(m.channels)) < group.width]
        if partial:  # choosing among all channels could empty it, and its width would not be the group's
            refused[group.name] = f"{partial[0]} sees only some of its channels: the network splits or concatenates them"
            continue
        kept = {group.name: tuple(range(1, group.width // 2 + 1)) or (0,)}
        trial = copy.deepcopy(dense)
        try:
            cut(trial, groups, kept, image_shape)
            check_cut(dense, trial, groups, kept, image_shape)
        except ValueError as error:
            refused[group.name] = str(error)
        except (RuntimeError, LookupError) as error:  # torch's words for shapes that no longer fit and weights that cannot be replaced
            refused[group.name] = f"the network does not run without some of its channels: {error}"
    return refused


def _without_zeros(network: nn.Module) -> nn.Module:
    """Return a copy with small random values where a parameter is all zeros, as a last gamma or a classifier may be at first.

    Zeros hide whatever lies before them.
    """
    copied, generator = copy.deepcopy(network), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in copied.parameters() if not p.any()):
            parameter.normal_(std=0.1, generator=generator)
    return copied


def _zeroing(positions: list[int]) -> Callable[[nn.Module, Any, Any], torch.Tensor]:
    """Return a forward hook that zeroes output channels."""

    def hook(module: nn.Module, _: Any, output: Any) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise ValueError(f"{type(module).__name__} gives no tensor whose channels could be zeroed")
        return output.index_fill(channel_axis(module), torch.tensor(positions), 0)

    return hook


def _layer(network: nn.Module, name: str) -> Layer:
    layer = network.get_submodule(name)
    assert isinstance(layer, Layer)
    return layer


def _dependency_graph(network: nn.Module, image_shape: tuple[int, int, int]) -> tp.DependencyGraph:
    """Trace the network's couplings; Torch-Pruning does not see frozen parameters, so none is frozen meanwhile."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    modes = {module: module.training for module in network.modules()}
    for parameter in frozen:
        parameter.requires_grad_(True)
    with torch.enable_grad():  # it traces through autograd
        graph = tp.DependencyGraph().build_dependency(network.eval(), (torch.zeros(2, *image_shape),))
    for parameter in frozen:
        parameter.requires_grad_(False)
    for module, training in modes.items():
        module.training = training
    return graph


def _first_producer(network: nn.Module, members: tuple[Member, ...], width: int) -> str:
    """Return the first layer, in the network's order, whose outputs are the group's channels, all of them and in their order."""
    channels = tuple(range(width))
    whole = {m.module for m in members if m.side == "out" and m.indices == m.channels == channels}
    return next(str(name) for name, module in network.named_modules() if name in whole and isinstance(module, Layer) and num_outputs(module) == width)
