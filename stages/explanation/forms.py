"""Forms of an ONNX file that show where a difference arises.

`cut` makes every layer read what it is given instead of what the layer before computed. So its output differs from a reference for what the layer
itself does, and not for what it inherits. `open_to_errors` adds an error behind every layer, so that its effect on the network's outputs is seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bonsai.stages.explanation.layers import DEQUANTIZE, QUANTIZE, Graph, Layer, array_of
from bonsai.stages.quantization.records import GATE_LEVELS

GIVEN, ERROR = ".given", ".error"
"""Endings of the inputs of a `cut` form, and of one that is `open_to_errors`, behind the name of the layer's output."""
ERRED = ".erred"
"""Ending of the sum of an output and its error."""
Types = Mapping[str, np.dtype[Any]]
"""Types of the layers' outputs, by the output's name."""


def dequantised(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    """Return what a DequantizeLinear of a constant gives, in the type of its scale."""
    integers, scale = array_of(graph, node.input[0]), array_of(graph, node.input[1])
    zero_point = array_of(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros_like(scale, dtype=integers.dtype)
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    shape = [-1 if place == axis % integers.ndim else 1 for place in range(integers.ndim)] if scale.ndim else []
    found = (integers.astype(np.int32) - zero_point.astype(np.int32).reshape(shape)) * scale.reshape(shape)
    return np.asarray(found, dtype=scale.dtype)


def to_float(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the network without its rounding.

    Args:
        model: A quantised file.
        weights: Weights and biases before they were rounded, by their name in the file. What is missing is taken from the file, as it was rounded.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]
    graph = Graph(plain)
    instead: dict[str, str] = {}  # what reads the one is to read the other
    constants: dict[str, np.ndarray] = {}
    gone: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.op_type == DEQUANTIZE and node.input[0] in graph.constants:
            name, restored = node.input[0], dequantised(graph, node)
            instead[node.output[0]] = name
            constants[name] = weights[name].astype(restored.dtype) if name in weights and weights[name].shape == restored.shape else restored
            gone.append(node)
        elif node.op_type == QUANTIZE and graph.is_live(node.input[0]) and not _computes(graph, node):
            readers = [reader for reader in graph.readers.get(node.output[0], []) if reader.op_type == DEQUANTIZE]
            if len(readers) == len(graph.readers.get(node.output[0], [])):
                instead |= {reader.output[0]: node.input[0] for reader in readers}
                gone += [node, *readers]
    constants |= {name: weights[name].astype(np.float32) for name in weights if name in graph.constants and name not in constants}
    left = [node for node in graph.nodes if not any(node is each for each in gone)]
    for node in left:
        node.input[:] = [_followed(instead, name) for name in node.input]
    kept = [tensor for tensor in plain.graph.initializer if tensor.name not in constants]
    _replace(plain.graph.node, left)
    _replace(plain.graph.initializer, [*kept, *(numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items())])
    return plain


def float_layers(layers: Sequence[Layer], plain: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the layers of a quantised file as they are in its form without rounding (`to_float`)."""
    read = {name for node in plain.graph.node for name in node.output}
    return tuple(layer if layer.output in read else layer._replace(output=layer.unrounded, read_as=(layer.unrounded,)) for layer in layers)


def cut(model: onnx.ModelProto, layers: Sequence[Layer], types: Types) -> onnx.ModelProto:
    """Return a file in which what reads a layer's output reads an input of the file instead, called as the output with `GIVEN` behind it."""
    return _rewired(model, layers, types, reads=GIVEN, given=GIVEN)


def open_to_errors(model: onnx.ModelProto, layers: Sequence[Layer], types: Types) -> onnx.ModelProto:
    """Return a file in which an input is added to each layer's output, called as the output with `ERROR` behind it; outputs keep their order."""
    changed = _rewired(model, layers, types, reads=ERRED, given=ERROR)
    sums = {layer.output: helper.make_node("Add", [layer.output, layer.output + ERROR], [layer.output + ERRED]) for layer in layers}
    own = {value.name for value in model.graph.input}
    ordered = [node for name, node in sums.items() if name in own]
    for node in changed.graph.node:
        ordered += [node, *(sums[name] for name in node.output if name in sums)]
    _replace(changed.graph.node, ordered)
    for output in changed.graph.output:
        output.name += ERRED if output.name in sums else ""
    return changed


def _rewired(model: onnx.ModelProto, layers: Sequence[Layer], types: Types, *, reads: str, given: str) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    instead = {name: layer.output + reads for layer in layers for name in layer.read_as}
    for node in changed.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
    kinds = {layer.output: helper.np_dtype_to_tensor_dtype(types[layer.output]) for layer in layers}
    changed.graph.input.extend(helper.make_tensor_value_info(name + given, kind, None) for name, kind in kinds.items())
    return changed


def _computes(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether rounding is part of an activation's arithmetic: the gate of SiLU or hardswish, whose grid ends at 1 or 6 and is read as one from 0 to 1."""
    restored = graph.readers.get(node.output[0], [])
    return any(reader.op_type == DEQUANTIZE and abs(float(array_of(graph, reader.input[1]).reshape(-1)[0]) - 1 / GATE_LEVELS) < 1e-9 for reader in restored)


def _followed(instead: Mapping[str, str], name: str) -> str:
    while name in instead:
        name = instead[name]
    return name


def _replace(field: Any, items: Sequence[Any]) -> None:
    """Put other messages into a repeated field, some of which may be in it now."""
    copies = [type(item)() for item in items]
    for copied, item in zip(copies, items, strict=True):
        copied.CopyFrom(item)
    del field[:]
    field.extend(copies)
