"""A dense network's ONNX file with fewer channels: what an export of the narrower network would give, in a fiftieth of the time."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from bonsai.stages.pruning.groups import Group, Widths

PLAIN = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
"""Layers that lose rows and columns of their weights, and nothing else."""
TENSORS = {"weight", "bias", "running_mean", "running_var"}


class CannotNarrow(Exception):
    """The graph holds channels in a place that is not known."""


def narrow_graph(model: onnx.ModelProto, network: nn.Module, groups: Iterable[Group], widths: Widths) -> onnx.ModelProto:
    """Keep the first channels of every group in the weights of an exported network.

    Args:
        model: The dense network, exported and simplified; weights have the names of the network's parameters.
        network: The dense network.
        groups: Its groups.
        widths: Channels to keep per group; a group that is missing stays whole.

    Raises:
        CannotNarrow: A block is left out; or the channels that leave run through something else than plain layers, one position each; or a weight of a
            layer that loses some is not in the graph under its name.
    """
    if not all(widths.values()):
        raise CannotNarrow("a block is left out")
    narrowed = onnx.ModelProto()
    narrowed.CopyFrom(model)
    sizes = _sizes(model)
    smaller = [group for group in groups if widths.get(group.name, group.width) < group.width]
    for group in smaller:
        _require_plain(group, network, sizes)
    gone = _positions(smaller, widths)
    tensors = {tensor.name: tensor for tensor in narrowed.graph.initializer}
    per_channel: dict[str, str] = {}  # name of a tensor by output channel -> the layer
    for (module, side), positions in gone.items():
        layer = network.get_submodule(module)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) or _is_depthwise(layer):
            continue  # folded into its convolution, or fitted below to what it reads
        weight = tensors.get(f"{module}.weight")
        if weight is None:
            raise CannotNarrow(f"the graph has no weight {module}.weight")
        if side == "out":
            per_channel[weight.name] = module
            _drop(weight, positions, axis=0)
            if f"{module}.bias" in tensors:
                per_channel[f"{module}.bias"] = module
                _drop(tensors[f"{module}.bias"], positions, axis=0)
        else:
            _drop(weight, positions, axis=1)
    _cut_biases(narrowed, tensors, gone, per_channel)
    _cut_scales(narrowed, tensors, gone, per_channel)
    _fit_to_inputs(narrowed, {tensor.name: tensor for tensor in model.graph.initializer})
    del narrowed.graph.value_info[:]
    return narrowed


def require_channels(model: onnx.ModelProto, expected: Mapping[str, tuple[int, int]]) -> None:
    """Check the channels of every layer's weight.

    Args:
        model: The graph.
        expected: (input, output) channels by layer.

    Raises:
        CannotNarrow: A layer has others.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for module, (inputs, outputs) in expected.items():
        found = shapes.get(f"{module}.weight", ())[:2]
        if found != (outputs, inputs):
            raise CannotNarrow(f"{module} has {found[::-1]} channels, not {(inputs, outputs)}")


def _require_plain(group: Group, network: nn.Module, sizes: Collection[int]) -> None:
    """Refuse a group whose channels are in the graph elsewhere than in the weights of layers: as sizes of a reshape or a split, or as parameters.

    Args:
        group: The group.
        network: The dense network.
        sizes: Whole numbers that the graph holds.

    Raises:
        CannotNarrow: The group runs through such a thing.
    """
    for member in group.members:
        layer = network.get_submodule(member.module)
        if not isinstance(layer, PLAIN):
            raise CannotNarrow(f"{member.module} is a {type(layer).__name__}")
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups > 1 and not _is_depthwise(layer):
            raise CannotNarrow(f"{member.module} has {layer.groups} groups")
        flattened = isinstance(layer, nn.Linear) and member.side == "in"
        if len(member.indices) > group.width and not (flattened and member.channels == tuple(sorted(member.channels))):
            raise CannotNarrow(f"a channel of {group.name} is several positions of {member.module}")
    for tensor in group.tensors:
        module, _, attribute = tensor.tensor.rpartition(".")
        if attribute not in TENSORS or not isinstance(network.get_submodule(module), PLAIN):
            raise CannotNarrow(f"{tensor.tensor} goes with the channels of {group.name}")
    for count in group.counts:
        module, _, attribute = count.attribute.rpartition(".")
        owner = network.get_submodule(module)
        if not isinstance(owner, PLAIN) and (count.entry is not None or getattr(owner, attribute) in sizes):
            raise CannotNarrow(f"{count.attribute} goes with the channels of {group.name}")


def _positions(groups: Iterable[Group], widths: Widths) -> dict[tuple[str, str], np.ndarray]:
    """Return, by module and side, the positions that leave; nothing where all stay."""
    leave: dict[tuple[str, str], set[int]] = {}
    for group in groups:
        for member in group.members:
            key = member.module, member.side
            found = {index for index, channel in zip(member.indices, member.channels, strict=True) if channel >= widths.get(group.name, group.width)}
            leave.setdefault(key, set()).update(found)
    return {key: np.array(sorted(gone)) for key, gone in leave.items() if gone}


def _drop(tensor: onnx.TensorProto, gone: np.ndarray, *, axis: int) -> None:
    array = np.delete(numpy_helper.to_array(tensor), gone, axis=axis)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _cut_biases(model: onnx.ModelProto, tensors: dict[str, onnx.TensorProto], gone: Mapping[tuple[str, str], np.ndarray], layers: Mapping[str, str]) -> None:
    """Cut the biases that a simplifier gave other names, and flatten to what a matrix product takes."""
    producers = _producers(model)
    for node in model.graph.node:
        if node.op_type not in {"Conv", "Gemm"}:
            continue
        weight = _weight(node, producers)
        if weight in layers and len(node.input) > 2 and node.input[2] in tensors and node.input[2] != f"{layers[weight]}.bias":
            _drop(tensors[node.input[2]], gone[layers[weight], "out"], axis=0)
        if node.op_type == "Gemm" and weight in tensors:
            before = _flattening(node, producers)
            if before is not None and before.input[1] in tensors:
                shape = tensors[before.input[1]]
                flat = np.array([*numpy_helper.to_array(shape)[:-1], tensors[weight].dims[1]])
                shape.CopyFrom(numpy_helper.from_array(flat, shape.name))


def _flattening(gemm: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the reshape of what a matrix product reads, or None."""
    before = producers.get(gemm.input[0])
    while before is not None and before.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        before = producers.get(before.input[0])
    return before if before is not None and before.op_type == "Reshape" else None


def _sizes(model: onnx.ModelProto) -> set[int]:
    """Return the whole numbers of a graph, other than those of the reshapes that are fitted to their matrix product."""
    producers = _producers(model)
    flat = [_flattening(node, producers) for node in model.graph.node if node.op_type == "Gemm"]
    fitted = {node.input[1] for node in flat if node is not None}
    found = {number for tensor in model.graph.initializer if tensor.name not in fitted for number in _numbers(tensor)}
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        found |= {*attribute.ints, *(_numbers(attribute.t) if attribute.type == onnx.AttributeProto.TENSOR else ())}
    return found


def _numbers(tensor: onnx.TensorProto) -> list[int]:
    return numpy_helper.to_array(tensor).reshape(-1).tolist() if tensor.data_type == onnx.TensorProto.INT64 else []


def _cut_scales(model: onnx.ModelProto, tensors: dict[str, onnx.TensorProto], gone: Mapping[tuple[str, str], np.ndarray], layers: Mapping[str, str]) -> None:
    """Give each narrowed weight's DequantizeLinear a scale and a zero-point of its own length; layers may share them."""
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in layers:
            continue
        for position in range(1, len(node.input)):
            shared = tensors[node.input[position]]
            if len(shared.dims) == 1:
                own = onnx.TensorProto()
                own.CopyFrom(shared)
                own.name = f"{node.input[0]}.{position}"
                _drop(own, gone[layers[node.input[0]], "out"], axis=0)
                model.graph.initializer.append(own)
                node.input[position] = own.name
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def _fit_to_inputs(model: onnx.ModelProto, originals: Mapping[str, onnx.TensorProto]) -> None:
    """Give depthwise convolutions and BatchNorms, average poolings among them, one value for every channel that they read.

    Their weights are not found by name: a simplifier lets those share one that are alike.

    Raises:
        CannotNarrow: Two nodes share not only a weight, but the DequantizeLinear of one.
    """
    producers, uses = _producers(model), Counter(name for node in model.graph.node for name in node.input)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    channels: dict[str, int] = {}
    for node in model.graph.node:
        read = [channels[name] for name in node.input if name in channels]
        if node.op_type == "Conv" and read and _groups(node) > 1 and originals[_weight(node, producers)].dims[1] == 1:
            places = _places(node, producers)
            if any(uses[holder.output[0]] > 1 for holder, _ in places if holder is not node):
                raise CannotNarrow(f"{node.name} shares its weight")
            next(attribute for attribute in node.attribute if attribute.name == "group").i = read[0]
        else:
            places = [(node, position) for position in range(1, 5)] if node.op_type == "BatchNormalization" and read else []
        for holder, position in places:
            name = holder.input[position]
            if len(originals[name].dims) == 0 or tensors[name].dims[0] == read[0]:
                continue
            own = onnx.TensorProto()
            own.CopyFrom(originals[name])
            own.name = name if uses[name] == 1 else f"{node.name}.{holder.op_type}.{position}"
            _drop(own, np.arange(read[0], own.dims[0]), axis=0)
            if uses[name] == 1:
                tensors[name].CopyFrom(own)
            else:
                model.graph.initializer.append(own)
                holder.input[position] = own.name
        if node.op_type in {"Conv", "Gemm"} and not places:
            read = [tensors[_weight(node, producers)].dims[0]]
        if read:
            channels[node.output[0]] = sum(read) if node.op_type == "Concat" else max(read)


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _places(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> list[tuple[onnx.NodeProto, int]]:
    """Return where a convolution's values per channel stand: as inputs of its own, or of the DequantizeLinear of its weight."""
    dequantize = producers.get(node.input[1])
    weight = [(node, 1)] if dequantize is None else [(dequantize, position) for position in range(len(dequantize.input))]
    return weight + [(node, position) for position in range(2, len(node.input))]


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == layer.in_channels > 1


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _weight(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> str:
    """Return the name of a layer's weight, which may come through DequantizeLinear."""
    return str(producers[node.input[1]].input[0] if node.input[1] in producers else node.input[1])
