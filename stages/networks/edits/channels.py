"""Channels and residual blocks removed from a network, and from tensors that go with its parameters."""

from collections.abc import Mapping

import torch
from torch import nn

from bonsai.stages.networks.edits.records import KeepChannels


def keep_channels(network: nn.Module, edit: KeepChannels) -> None:
    """Cut a network in place. Parameters that lose positions are new ones, without gradients; a frozen one stays frozen."""
    for block in edit.dropped:
        place, _, attribute = block.rpartition(".")
        setattr(network.get_submodule(place), attribute, nn.Identity())
    whole = dict(network.named_parameters()) | dict(network.named_buffers())
    names: dict[int, list[str]] = {}
    for name, shared in (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)):
        names.setdefault(id(shared), []).append(name)
    for name, value in carry({tensor: whole[tensor] for tensor, _ in edit.by_axis()}, edit).items():
        before = whole[name]
        made = nn.Parameter(value, requires_grad=before.requires_grad) if isinstance(before, nn.Parameter) else value
        for every in names[id(before)]:
            place, _, attribute = every.rpartition(".")
            setattr(network.get_submodule(place), attribute, made)
    for name, size in edit.sizes.items():
        place, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(place), attribute, size)


def carry(tensors: Mapping[str, torch.Tensor], edit: KeepChannels) -> dict[str, torch.Tensor]:
    """Return what an edit leaves of tensors that go with parameters, such as moments and averages.

    Args:
        tensors: By the name of the parameter or buffer, and of its shape; one without dimensions, such as a step count, stays as it is.
        edit: What the network keeps.
    """
    carried = {name: value for name, value in tensors.items() if not edit.drops(name)}
    for kept in edit.kept:
        indices = torch.tensor(kept.indices, dtype=torch.long)
        for name, axes in kept.axes.items():
            for axis in axes if name in carried and carried[name].ndim else ():
                value = carried[name].detach()
                carried[name] = value.index_select(axis, indices.to(value.device))
    return carried
