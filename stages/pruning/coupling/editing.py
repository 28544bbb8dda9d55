"""The edit that removes channels of groups from a network."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bonsai.stages.networks.edits.records import Axis, Indices, KeepChannels, Size
from bonsai.stages.pruning.groups import Group, Kept, blocks_of


def edit_of(network: nn.Module, groups: Iterable[Group], kept: Kept) -> KeepChannels:
    """Return what is left of every parameter, buffer and size.

    Args:
        network: The network that the groups were found in.
        groups: Its groups.
        kept: Channels to keep by group name; a group without an entry stays whole. Where none of a block's channels are kept, the block is left out.
    """
    groups, dropped = _outside(groups, kept)
    gone: dict[Axis, set[int]] = defaultdict(set)
    fewer: dict[str, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    for group in groups:
        removed = set(range(group.width)) - set(kept.get(group.name, range(group.width)))
        for each in group.tensors if removed else ():
            gone[each.tensor, each.axis] |= {index for index, channel in zip(each.indices, each.channels, strict=True) if channel in removed}
        for count in group.counts if removed else ():
            fewer[count.attribute][count.entry] += sum(channel in removed for channel in count.channels)
    whole = dict(network.named_parameters()) | dict(network.named_buffers())
    left: dict[Axis, Indices] = {axis: tuple(i for i in range(whole[axis[0]].shape[axis[1]]) if i not in some) for axis, some in gone.items() if some}
    sizes: dict[str, Size] = {}
    for attribute, entries in fewer.items():
        before: Any = _attribute(network, attribute)
        if isinstance(before, int):
            sizes[attribute] = before - entries[None]
        else:
            sizes[attribute] = tuple(value - entries.get(place, 0) for place, value in enumerate(before))
    cut = {id(whole[tensor]): tensor for tensor, _ in left}
    for name, module in network.named_modules():
        own = {key: cut[id(value)] for key, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)) if id(value) in cut}
        if own:
            sizes |= _sizes(name, module, own, left, sizes)
    return KeepChannels.of(left, {name: size for name, size in sizes.items() if size != _attribute(network, name)}, dropped)


def dropped_blocks(groups: Iterable[Group], kept: Kept) -> tuple[str, ...]:
    """Return the residual blocks that are left out because none of their channels are kept."""
    return tuple(block for block, names in blocks_of(groups).items() if all(not kept.get(name, (0,)) for name in names))


def _outside(groups: Iterable[Group], kept: Kept) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Return what groups have outside of the blocks that are left out, and those blocks."""
    groups = tuple(groups)
    blocks = dropped_blocks(groups, kept)
    edit = KeepChannels(dropped=blocks)

    def outside(group: Group) -> Group:
        return group.model_copy(
            update={
                "members": tuple(member for member in group.members if not edit.drops(member.module)),
                "tensors": tuple(each for each in group.tensors if not edit.drops(each.tensor)),
                "counts": tuple(count for count in group.counts if not edit.drops(count.attribute)),
            }
        )

    left = tuple(group for group in groups if group.block not in blocks)
    return (tuple(map(outside, left)) if blocks else left), blocks


def _attribute(network: nn.Module, name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(network.get_submodule(module), attribute)


def _sizes(name: str, module: nn.Module, own: Mapping[str, str], left: dict[Axis, Indices], counted: dict[str, Size]) -> dict[str, Size]:
    """Return the sizes of a layer of torch.

    Args:
        name: Its name.
        module: The layer as it was.
        own: Names in the network of those of its tensors that lose positions; layers may share one.
        left: What tensors keep.
        counted: Sizes that are known.
    """
    lead = f"{name}." if name else ""
    weight = getattr(module, "weight", None)
    shape = [len(left.get((own.get("weight", ""), axis), range(size))) for axis, size in enumerate(weight.shape)] if weight is not None else []
    if isinstance(module, _ConvNd):
        return {f"{lead}{attribute}": size for attribute, size in _convolution(module, shape, counted, lead).items()}
    if isinstance(module, nn.Linear):
        return {f"{lead}in_features": shape[1], f"{lead}out_features": shape[0]}
    if isinstance(module, _NormBase):
        vector = own.get("weight" if weight is not None else "running_mean", "")
        return {f"{lead}num_features": len(left.get((vector, 0), range(module.num_features)))}
    if isinstance(module, nn.GroupNorm):
        channels = shape[0] if shape else module.num_channels
        return {
            f"{lead}num_channels": channels,
            f"{lead}num_groups": module.num_groups if module.num_groups == 1 else channels * module.num_groups // module.num_channels,
        }
    if isinstance(module, nn.LayerNorm) and shape:
        return {f"{lead}normalized_shape": tuple(shape)}
    if isinstance(module, nn.PReLU) and shape:
        return {f"{lead}num_parameters": shape[0]}
    if isinstance(module, nn.Embedding):
        return {f"{lead}num_embeddings": shape[0], f"{lead}embedding_dim": shape[1]}
    return {}


def _convolution(module: _ConvNd, shape: list[int], counted: dict[str, Size], lead: str) -> dict[str, Size]:
    transposed = isinstance(module, _ConvTransposeNd)
    if module.groups == 1:
        ins, outs = (shape[0], shape[1]) if transposed else (shape[1], shape[0])
        return {"in_channels": ins, "out_channels": outs}
    inputs, groups = counted.get(f"{lead}in_channels", module.in_channels), counted.get(f"{lead}groups", module.groups)
    assert isinstance(groups, int)
    return {"in_channels": inputs, "out_channels": shape[1] * groups if transposed else shape[0], "groups": groups}


def groups_left(groups: Iterable[Group], kept: Kept) -> tuple[Group, ...]:
    """Return the groups of the network that a cut leaves, of the same names in the same order; without those of blocks that it leaves out.

    Args:
        groups: Groups of the network before the cut.
        kept: Channels that it keeps, by group name; a group without an entry stays whole.
    """
    groups, _ = _outside(groups, kept)
    gone: dict[Axis, set[int]] = defaultdict(set)
    left = {group.name: tuple(kept.get(group.name, range(group.width))) for group in groups}
    for group in groups:
        channels = set(left[group.name])
        axes: list[tuple[Axis, tuple[int, ...], tuple[int, ...]]] = [((each.tensor, each.axis), each.indices, each.channels) for each in group.tensors]
        axes += [((member.module, _SIDES[member.side]), member.indices, member.channels) for member in group.members]
        for axis, indices, of in axes:
            gone[axis] |= {index for index, channel in zip(indices, of, strict=True) if channel not in channels}
    return tuple(_left(group, left[group.name], gone) for group in groups)


_SIDES = {"out": -1, "in": -2}
"""Stand for the dimensions of a module, beside those of tensors."""


def _left(group: Group, channels: tuple[int, ...], gone: dict[Axis, set[int]]) -> Group:
    number = {channel: place for place, channel in enumerate(channels)}

    def fewer(axis: Axis, indices: tuple[int, ...], of: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        before = sorted(gone[axis])
        pairs = [(index - bisect_left(before, index), number[channel]) for index, channel in zip(indices, of, strict=True) if channel in number]
        return {"indices": tuple(index for index, _ in pairs), "channels": tuple(channel for _, channel in pairs)}

    return group.model_copy(
        update={
            "width": len(channels),
            "members": tuple(m.model_copy(update=fewer((m.module, _SIDES[m.side]), m.indices, m.channels)) for m in group.members),
            "tensors": tuple(t.model_copy(update=fewer((t.tensor, t.axis), t.indices, t.channels)) for t in group.tensors),
            "counts": tuple(c.model_copy(update={"channels": tuple(number[channel] for channel in c.channels if channel in number)}) for c in group.counts),
        }
    )
