"""The parameters of a layer, in the ONNX file and in an engine of ONNX Runtime, and what is wrong with them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx

from bonsai.stages.explanation.faults import Fault, of_bias, of_grid, of_weights
from bonsai.stages.explanation.forms import dequantised
from bonsai.stages.explanation.layers import DEQUANTIZE, MOVED, QUANTIZE, Graph, Layer, array_of
from bonsai.stages.explanation.learnt import Learnt, LearntLayer
from bonsai.stages.explanation.probing import Grid, Plan, assign, grid_of
from bonsai.stages.graph.audit import LAYERS

WEIGHTS = {"QLinearConv": (3, 4, 5), "QGemm": (3, 4, 5), "QLinearMatMul": (3, 4, 5), DEQUANTIZE: (0, 1, 2)}
"""Inputs of a node that are weights, their scale and their zero-point, by operator of an engine."""
PLAIN_WEIGHTS = LAYERS | {"FusedConv", "FusedGemm", "FusedMatMul"}
"""Operators that multiply by their second input, and add the third."""
BIASES = {"QLinearConv": 8, "QGemm": 6, **dict.fromkeys(PLAIN_WEIGHTS, 2)}
READ_GRIDS = {
    **dict.fromkeys(("QLinearConv", "QGemm"), ((0, 1, 2),)),
    **dict.fromkeys(("QLinearMatMul", "QLinearAdd", "QLinearMul"), ((0, 1, 2), (3, 4, 5))),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", DEQUANTIZE), ((0, 1, 2),)),
}
"""Inputs of a node that are a tensor, and the scale and zero-point by which it is read."""


class Parameters(NamedTuple):
    """What a layer of an ONNX file computes with.

    Attributes:
        weight: Dequantised; None if it has none.
        bias: In float; None if it has none.
        weight_names: Names of both in the file.
        integers: The weights as they are stored; None if they are in float.
        quantizer: Name of the module that its output's grid comes from; empty if its output is not rounded.
        written, read: Its output's grid in QuantizeLinear, and in each DequantizeLinear behind it.
        levels: Lowest and highest integer of the output.
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    weight_names: tuple[str, str] = ("", "")
    integers: np.ndarray | None = None
    quantizer: str = ""
    written: Grid | None = None
    read: tuple[Grid, ...] = ()
    levels: tuple[int, int] = (0, 255)


def parameters_of(graph: Graph, layer: Layer) -> Parameters:
    """Return the parameters of a layer of an ONNX file."""
    found = Parameters()
    if layer.weight:
        node = next(each for each in graph.nodes if each.name == layer.node)
        weight, bias = ((_constant(graph, node.input[place]) if len(node.input) > place else ("", None, None)) for place in (1, 2))
        found = found._replace(weight=weight[1], bias=bias[1], weight_names=(layer.weight, bias[0]), integers=weight[2])
    if layer.is_quantised:
        (rounding,) = graph.readers[layer.unrounded]
        signed = len(rounding.input) > 2 and array_of(graph, rounding.input[2]).dtype == np.int8
        found = found._replace(
            quantizer=rounding.input[1].removesuffix(".scale"),
            written=_grid(graph, rounding),
            read=tuple(_grid(graph, graph.producers[name]) for name in layer.read_as),
            levels=(-128, 127) if signed else (0, 255),
        )
    return found


def fault_of_file(layer: Layer, found: Parameters, learnt: Learnt | None) -> Fault | None:
    """Return what is wrong with a layer's parameters in the ONNX file.

    Args:
        layer: The layer.
        found: Its parameters.
        learnt: What the network learnt; None leaves only whether a tensor is read as it was written.
    """
    known = learnt_of(layer, found, learnt)
    if known is not None and found.weight is not None:
        if found.integers is None:
            return Fault("float", "its weights are in float, although the network was quantised here")
        fault = of_weights(found.weight, known.rounded, found.integers) or of_bias(found.bias, known.bias)
        if fault is not None:
            return fault
    if learnt is not None and known is None and found.weight is not None and _is_unknown(layer, found.weight, learnt):
        return Fault("extra operator", "the network has no such layer")
    gate = any(found.written is not None and abs(read.scale * 6 / found.written.scale - 1) < 1e-3 for read in found.read)  # hardswish: read as one from 0 to 1
    for read in found.read:
        if found.written is not None and not gate and (fault := of_grid(read, found.written)) is not None:
            return fault._replace(seen=f"{fault.seen} where the next layer reads it")
    if learnt is None or learnt.dialect != "ort":
        return None
    wanted = learnt.grid(found.quantizer)
    if found.written is not None and wanted is not None and found.written.scale < wanted.scale and _ends_at_six(found):
        return None
    return of_grid(found.written, wanted)


def faults_of_engine(engine: onnx.ModelProto, fresh: onnx.ModelProto, plan: Plan) -> Iterator[tuple[str, Fault]]:
    """Yield what is wrong in an engine, with the layer's name, by comparison with one that the runtime has just made of the same ONNX file.

    Args:
        engine: The package's engine.
        fresh: The engine that was made now.
        plan: Which of its nodes belong to which layer.
    """
    ours, theirs = Graph(engine), Graph(fresh)
    layers = assign(ours, plan.tensors, plan.nodes)
    by_name = {node.name: node for node in ours.nodes}
    wanted = {node.name: node for node in theirs.nodes}
    extra: dict[str, list[str]] = {}
    for name, node in by_name.items():
        if name not in wanted:
            extra.setdefault(layers[name], []).append(node.op_type)
    for name, node in wanted.items():
        if name not in by_name or by_name[name].op_type != node.op_type:
            layer = plan.nodes[name]
            instead = [*extra.pop(layer, []), *([by_name[name].op_type] if name in by_name else [])]
            in_float = node.op_type.startswith("Q") and any(op in PLAIN_WEIGHTS | {"Add", "Mul", "Concat"} for op in instead)
            made = f"the engine has {_counted(instead) or 'nothing'} in place of the {node.op_type} that the runtime makes of model.onnx"
            yield layer, Fault("float" if in_float else "extra operator", made)
        elif (fault := _of_node(ours, by_name[name], theirs, node)) is not None:
            yield plan.nodes[name], fault
    for layer, operators in extra.items():
        yield layer, Fault("extra operator", f"the engine computes {_counted(operators)}, which model.onnx does not ask for")


def _counted(operators: Sequence[str]) -> str:
    """Return what there is, each kind once: ``LeakyRelu x 60, QuantizeLinear``."""
    return ", ".join(f"{op} x {count}" if count > 1 else op for op, count in Counter(operators).items())


def _of_node(ours: Graph, found: onnx.NodeProto, theirs: Graph, wanted: onnx.NodeProto) -> Fault | None:
    weight, other = _weight(ours, found), _weight(theirs, wanted)
    fault = of_weights(weight, other, _integers(ours, found)) if weight is not None and other is not None else None
    fault = fault or of_bias(_bias(ours, found), _bias(theirs, wanted))
    if fault is None and found.op_type not in MOVED:
        fault = of_grid(grid_of(ours, found.output[0]), grid_of(theirs, wanted.output[0]))
    return fault or _of_reading(ours, found, theirs, wanted)


def _of_reading(ours: Graph, found: onnx.NodeProto, theirs: Graph, wanted: onnx.NodeProto) -> Fault | None:
    """Return whether a node reads a tensor by another grid than it was written by; if both changed alike, the fault is the writer's."""
    for tensor, *_ in READ_GRIDS.get(found.op_type, ()):
        written = grid_of(ours, found.input[tensor])
        if written is None:
            continue
        reads = [_read_grid(graph, node, tensor) for graph, node in ((ours, found), (theirs, wanted))]
        if written != reads[0] and (fault := of_grid(reads[0], reads[1])) is not None:
            return fault._replace(seen=fault.seen.replace("its output", "its input"))
    return None


def _weight(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    places = WEIGHTS.get(node.op_type)
    if places is not None and node.input[places[0]] in graph.constants:
        weight, scale, zero_point = (array_of(graph, node.input[place]) if len(node.input) > place else np.zeros(()) for place in places)
        along = [1] * weight.ndim
        if scale.size > 1:
            along[0 if scale.size == weight.shape[0] else weight.ndim - 1] = -1
        return np.asarray(
            (weight.astype(np.float32) - zero_point.reshape(along if zero_point.size > 1 else ())) * scale.reshape(along if scale.size > 1 else ())
        )
    if node.op_type in PLAIN_WEIGHTS and len(node.input) > 1 and node.input[1] in graph.constants:
        return array_of(graph, node.input[1])
    return None


def _integers(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    places = WEIGHTS.get(node.op_type)
    return array_of(graph, node.input[places[0]]) if places is not None and node.input[places[0]] in graph.constants else None


def _bias(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    place = BIASES.get(node.op_type)
    name = node.input[place] if place is not None and len(node.input) > place else ""
    return array_of(graph, name).astype(np.float64) if name in graph.constants else None


def _read_grid(graph: Graph, node: onnx.NodeProto, tensor: int) -> Grid | None:
    scale, zero_point = [*node.input[tensor + 1 : tensor + 3], "", ""][:2]
    if scale not in graph.constants:
        return None
    return Grid(float(array_of(graph, scale).reshape(-1)[0]), int(array_of(graph, zero_point).reshape(-1)[0]) if zero_point in graph.constants else 0)


def _grid(graph: Graph, node: onnx.NodeProto) -> Grid:
    assert node.op_type in {QUANTIZE, DEQUANTIZE}
    scale = float(array_of(graph, node.input[1]).reshape(-1)[0])
    return Grid(scale, int(array_of(graph, node.input[2]).reshape(-1)[0]) if len(node.input) > 2 and node.input[2] else 0)


def _constant(graph: Graph, name: str) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """Return a weight or bias: the name that it is stored by, its values in float, and the integers that it is stored as, if it is."""
    if name in graph.constants:
        return name, array_of(graph, name), None
    producer = graph.producers.get(name)
    if producer is not None and producer.op_type == DEQUANTIZE and producer.input[0] in graph.constants:
        return producer.input[0], dequantised(graph, producer), array_of(graph, producer.input[0])
    return "", None, None


def _ends_at_six(found: Parameters) -> bool:
    """Whether a grid ends where the clip of a ReLU6 does, which holds a learnt scale back."""
    return found.written is not None and abs((found.levels[1] - found.written.zero_point) * found.written.scale - 6) < 1e-3


def learnt_of(layer: Layer, found: Parameters, learnt: Learnt | None) -> LearntLayer | None:
    """Return what the network learnt of a layer; None if nobody knows."""
    if learnt is None or found.weight is None:
        return None
    return learnt.layer(layer.name, found.weight, transposed=layer.op == "ConvTranspose")


def weights_before_rounding(layers: Sequence[Layer], parameters: Mapping[str, Parameters], learnt: Learnt | None) -> dict[str, np.ndarray]:
    """Return the float weights and biases that the network learnt, by their name in the ONNX file; empty where nobody knows them."""
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        own = parameters[layer.name]
        known = learnt_of(layer, own, learnt)
        if known is not None:
            found[own.weight_names[0]] = known.weight
            if own.weight_names[1] and known.bias is not None:
                found[own.weight_names[1]] = known.bias
    return found


def _is_unknown(layer: Layer, weight: np.ndarray, learnt: Learnt) -> bool:
    """Whether a layer is called as a module's is, but the network has no such module; an average pooling that became a convolution has equal weights."""
    return layer.weight.endswith(".weight") and not learnt.names(layer.name) and float(np.ptp(weight)) > 0
