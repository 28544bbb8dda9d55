"""The tensors inside an engine, read on the engine's own device, and which layer's output each of them holds.

An engine of ONNX Runtime is an ONNX file, so every tensor in it can be an output. What was fused into one kernel is not there any more. Tensors may lie in
memory in another order, too: channels last, or in blocks of 8 or 16 channels.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bonsai.stages.backends.device import Device
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.explanation.layers import MOVED, QUANTIZE, Graph, Layer, array_of, read_model
from bonsai.stages.explanation.tensors import Tensors

SIDES = 6
"""Most sides of a tensor that is looked at."""
GRIDS = {
    QUANTIZE: (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QGemm": (7, 8),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QLinearConcat": (0, 1),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearReduceMean", "QLinearSigmoid"), (3, 4)),
    "QLinearSoftmax": (3, 4),
}
"""Inputs of a node that are the scale and the zero-point of its output, by operator."""
PASSING = MOVED | {"MaxPool", "NhwcMaxPool", "ReorderInput", "ReorderOutput"}
"""Operators whose output has the scale of their input."""
ALIKE = 0.3
"""Largest difference, over the size of the values, at which two tensors are taken for the same one."""


class Seen(NamedTuple):
    """Where an engine holds a layer's output.

    Attributes:
        tensor: Name in the engine.
        order: Name of the order in which it lies there, of `ORDERS`.
    """

    tensor: str
    order: str


class Plan(NamedTuple):
    """What of an engine belongs to which layer.

    Attributes:
        seen: By layer, where its output is; a layer that was fused into the next has none.
        nodes: Layer by the name of a node.
        tensors: Layer by the name of a tensor that is its output.
    """

    seen: dict[str, Seen]
    nodes: dict[str, str]
    tensors: dict[str, str]


class Grid(NamedTuple):
    """What a rounded tensor's integers mean."""

    scale: float
    zero_point: int


def grid_of(graph: Graph, tensor: str) -> Grid | None:
    """Return the grid of a tensor in an engine; None if it is not rounded."""
    node = graph.producers.get(tensor)
    if node is None:
        return None
    if node.op_type in PASSING:
        return grid_of(graph, node.input[0])
    places = GRIDS.get(node.op_type, ())
    if not places or len(node.input) <= places[0] or not node.input[places[0]]:
        return None
    scale, zero_point = (array_of(graph, node.input[place]).reshape(-1)[0] if len(node.input) > place and node.input[place] else 0 for place in places)
    return Grid(float(scale), int(zero_point))


def engine_tensors(device: Device, engine: EngineFile, images: np.ndarray) -> Tensors:
    """Return what every tensor of an engine of ONNX Runtime holds, dequantised, in the order in which it lies there.

    Args:
        device: The engine's device.
        engine: An ONNX file that is not optimised again.
        images: (images, ...) float32.

    Raises:
        BuildError: The engine cannot be loaded.
    """
    model = read_model(engine.file)
    graph = Graph(model)
    names = [name for node in graph.nodes if node.op_type not in {"Shape", "Size"} for name in node.output if name and graph.is_live(name)]
    with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
        file = Path(scratch) / engine.file.name
        file.write_bytes(_with_tensors_as_outputs(model, names).SerializeToString())
        runs = [_split(found[0], names) for found in device.run(engine.model_copy(update={"file": file}), [image[None] for image in images])]
    found = {name: np.stack([run[name] for run in runs]) for name in names}
    grids = {name: grid_of(graph, name) for name in names}
    return {name: value if (grid := grids[name]) is None else (value - grid.zero_point) * np.float32(grid.scale) for name, value in found.items()}


def plan_of(engine: Path, found: Tensors, layers: Sequence[Layer], expected: Tensors) -> Plan:
    """Find out which tensor of an engine is which layer's output: the one that holds the same values.

    Args:
        engine: An ONNX file that the runtime made of the network.
        found: All its tensors.
        layers: Layers of the network.
        expected: Their outputs.
    """
    graph, seen = Graph(read_model(engine)), dict[str, Seen]()
    for layer in layers:
        value, best = expected[layer.output], (ALIKE, Seen("", ""))
        for name, tensor in found.items():
            for order, placed in _orders(tensor, value.shape):
                best = min(best, (difference(placed, value), Seen(name, order)), key=lambda pair: pair[0])
        if best[1].tensor:
            seen[layer.name] = best[1]
    tensors: dict[str, str] = {}
    for layer in layers:
        if layer.name in seen:
            tensors.setdefault(seen[layer.name].tensor, layer.name)
    return Plan(seen, assign(graph, tensors), tensors)


def assign(graph: Graph, tensors: Mapping[str, str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the layer of every named node: that of its output, else that which `known` says, else that of what reads the output."""
    found: dict[str, str] = {}
    last = next(reversed(list(tensors.values())), "")
    for node in reversed(graph.nodes):
        own = next((tensors[name] for name in node.output if name in tensors), "")
        behind = next((found[reader.name] for name in node.output for reader in graph.readers.get(name, []) if reader.name in found), last)
        found[node.name] = own or (known or {}).get(node.name, "") or behind
    return found


def place(found: np.ndarray, order: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a tensor in the order of the ONNX file, (images, *shape); None where it cannot be brought there."""
    return next((placed for name, placed in _orders(found, shape) if name == order), None)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the difference over that of the expected values; infinite if one of them is no number."""
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    apart = float(np.sqrt(np.mean(np.square(found.astype(np.float64) - expected))))
    return apart / max(size, 1e-12) if np.isfinite(apart) else float("inf")


def _orders(found: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a tensor in every order that ends in a shape, by the order's name."""
    if found.shape == shape:
        yield "plain", found
    if found.ndim >= 4 and found.ndim == len(shape) and np.moveaxis(found, -1, 2).shape == shape:
        yield "channels last", np.moveaxis(found, -1, 2)
    elif found.size == np.prod(shape) and found.shape != shape:
        yield "reshaped", found.reshape(shape)
    if found.ndim == len(shape) == 5 and found.shape[3:] == shape[3:] and found.shape[2] >= shape[2]:
        for block in (8, 16):
            if found.shape[2] % block == 0:
                blocks = found.reshape(*found.shape[:2], -1, *found.shape[3:], block)
                yield f"blocks of {block}", np.moveaxis(blocks, -1, 3).reshape(found.shape)[:, :, : shape[2]]


def _with_tensors_as_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a file that gives for each tensor its shape, filled up with zeros to `SIDES` numbers, and then its values, (1, n) float32 each.

    A device joins the outputs of an engine into one array, from which `_split` takes them.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    graph = shown.graph
    constants = {"zeros": np.zeros(SIDES, np.int64), "flat": np.array([1, -1]), "first": np.array([0]), "last": np.array([SIDES])}
    prefix = "bonsai.shown."
    graph.initializer.extend(numpy_helper.from_array(value, prefix + name) for name, value in constants.items())
    del graph.output[:]
    for number, name in enumerate(names):
        own = f"{prefix}{number}."
        steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
            ("Shape", [name], "sides", {}),
            ("Concat", [f"{own}sides", f"{prefix}zeros"], "filled", {"axis": 0}),
            ("Slice", [f"{own}filled", f"{prefix}first", f"{prefix}last"], "cut", {}),
            ("Cast", [f"{own}cut"], "numbers", {"to": TensorProto.FLOAT}),
            ("Reshape", [f"{own}numbers", f"{prefix}flat"], "shape", {}),
            ("Cast", [name], "float", {"to": TensorProto.FLOAT}),
            ("Reshape", [f"{own}float", f"{prefix}flat"], "values", {}),
        ]
        graph.node.extend(helper.make_node(op, inputs, [own + output], name=own + output, **options) for op, inputs, output, options in steps)
        graph.output.extend(onnx.ValueInfoProto(name=own + output) for output in ("shape", "values"))
    return shown


def _split(joined: np.ndarray, names: Sequence[str]) -> Tensors:
    """Return the tensors of one image out of what a device joined."""
    found, start = {}, 0
    for name in names:
        shape = [int(side) for side in joined[start : start + SIDES] if side]
        start += SIDES
        size = int(np.prod(shape))
        found[name] = joined[start : start + size].reshape(shape)
        start += size
    return found
