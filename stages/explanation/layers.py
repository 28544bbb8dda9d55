"""The layers of an ONNX file: a layer is one operator with the activation behind it, and its output is what forms of a network are compared by.

    graph = Graph(onnx.load("model.onnx"))
    for layer in layers_of(graph):
        print(layer.name, layer.op, layer.output)

In a quantised file, the output is that of the DequantizeLinear: the values that the next layer reads. A runtime that fuses convolution, activation and
rounding into one kernel still writes these values.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from bonsai.stages.graph.audit import LAYERS, MOVES

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
ACTIVATIONS = {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Tanh"}
"""Operators that belong to the layer before them, if they alone read its output."""
MOVED = MOVES | {"Cast", "Expand", "Flatten", "Slice", "Split", "Squeeze", "Unsqueeze"}
"""Operators that compute nothing; they are part of the layer that reads them."""
SHAPES = {"Shape", "Size"}


class Layer(NamedTuple):
    """One layer.

    Attributes:
        name: That of its weights in the network, such as ``layer1.0.conv1``; of a layer without weights its operator and the layer with weights before it.
        op: Operator in ONNX.
        output: Name of the tensor that it hands on; in a quantised file the values after rounding.
        read_as: All names that other nodes read this tensor by.
        unrounded: Name of the same tensor before QuantizeLinear; `output` itself where it is not quantised.
        node: Name of the operator's node; empty for an input of the network.
        weight: Name of its weights; empty if it has none.
        near: Name of the layer itself if it has weights, else of the last with weights before it: what a recipe can name.
    """

    name: str
    op: str
    output: str
    read_as: tuple[str, ...]
    unrounded: str
    node: str = ""
    weight: str = ""
    near: str = ""

    @property
    def is_quantised(self) -> bool:
        """Whether its output is rounded."""
        return self.unrounded != self.output


class Graph:
    """An ONNX file with what produces and what reads each tensor.

    Args:
        model: The file; it is not changed.

    Attributes:
        nodes: In the order of the file, which is one of execution.
        producers: Node by the name of its output.
        readers: Nodes by the name of their input.
        constants: Values of the file that depend on no input, by name.
        inputs: Shape of each input without the batch, by name.
        outputs: Names of the outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in filter(None, node.input):
                self.readers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in self.nodes:
            values = [each.t for each in node.attribute if each.name == "value"] if node.op_type == "Constant" else []
            self.constants |= dict(zip(node.output, values, strict=False))
        inputs = {each.name: each.type.tensor_type.shape.dim[1:] for each in graph.input if each.name not in self.constants}
        self.inputs = {name: tuple(side.dim_value for side in sides) for name, sides in inputs.items()}
        self.outputs = [each.name for each in graph.output]
        self._live = set(self.inputs)
        for node in self.nodes:
            if node.op_type not in SHAPES and self._live.intersection(node.input):
                self._live.update(filter(None, node.output))

    def is_live(self, tensor: str) -> bool:
        """Whether a tensor's values depend on the values of an input."""
        return tensor in self._live

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that alone reads a tensor; None if there are several, or if it is an output."""
        readers = self.readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def weight_of(self, node: onnx.NodeProto) -> str:
        """Return the name of the weights that a layer multiplies by, as they are stored; empty if it has none."""
        name = node.input[1] if node.op_type in LAYERS else ""
        while name in self.producers and self.producers[name].op_type in MOVES | {DEQUANTIZE}:
            name = self.producers[name].input[0]
        return name if name in self.constants else ""


def read_model(file: Path) -> onnx.ModelProto:
    """Return an ONNX file whose nodes all have names: one without gets that by which ONNX Runtime's profile calls it."""
    model = onnx.load(file)
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    return model


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """Return the layers in order of execution, and before them the inputs that are rounded, as layers of their own."""
    found = [layer for name in graph.inputs if (layer := _finish(graph, [name], name, "input")).is_quantised]
    weighted = [""]  # names of the layers with weights so far
    origins: dict[str, str] = {}  # by tensor, the last of these on the way to it
    named: Counter[str] = Counter()
    inside: set[str] = set()
    for node in graph.nodes:
        if not node.output or not graph.is_live(node.output[0]):
            continue
        origin = max((origins[name] for name in node.input if name in origins), key=weighted.index, default="")
        origins |= dict.fromkeys(node.output, origin)
        if node.op_type in MOVED | {QUANTIZE, DEQUANTIZE} or node.output[0] in inside or _passes(node):
            continue
        tensors = [node.output[0]]
        while (after := graph.only_reader(tensors[-1])) is not None and _is_activation_of(graph, after, tensors[-1]):
            tensors.append(after.output[0])
        inside.update(tensors)
        weight = graph.weight_of(node)
        name = (weight.removesuffix(".weight") if weight.endswith(".weight") else node.name) if weight else f"{node.op_type} after {origin or 'input'}"
        named[name] += 1
        name = name if named[name] == 1 else f"{name} ({named[name]})"
        if weight:
            weighted.append(name)
            origins |= dict.fromkeys(tensors, name)
        found.append(_finish(graph, tensors, name, node.op_type)._replace(node=node.name, weight=weight, near=name if weight else origin))
    return tuple(found)


def array_of(graph: Graph, name: str) -> np.ndarray:
    """Return a constant of the file."""
    return numpy_helper.to_array(graph.constants[name])


def _finish(graph: Graph, tensors: list[str], name: str, op: str) -> Layer:
    """Return a layer that ends with the last of its tensors, or with the rounding of that, if nothing reads it as it is."""
    rounding = graph.only_reader(tensors[-1])
    restored = graph.readers.get(rounding.output[0], []) if rounding is not None and rounding.op_type == QUANTIZE else []
    read_as = tuple(reader.output[0] for reader in restored) if all(reader.op_type == DEQUANTIZE for reader in restored) else ()
    read_as = read_as or (tensors[-1],)
    return Layer(name, op, read_as[0], read_as, tensors[-1])


def _is_activation_of(graph: Graph, node: onnx.NodeProto, tensor: str) -> bool:
    return node.op_type in ACTIVATIONS and node.input[0] == tensor and not any(graph.is_live(name) for name in node.input[1:]) and not _passes(node)


def _passes(node: onnx.NodeProto) -> bool:
    """Whether a node is a LeakyRelu of slope 1, which shields a layer in float (`stages/graph/shielding.py`)."""
    return node.op_type == "LeakyRelu" and any(each.name == "alpha" and each.f == 1 for each in node.attribute)
