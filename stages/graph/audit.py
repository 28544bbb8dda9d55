"""Counts the nodes and types of an ONNX graph, so that a change by a later tool is noticed."""

from collections import Counter

import onnx
from onnx import TensorProto, numpy_helper

from bonsai.stages.errors import BuildError

INTEGERS = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}
CONVOLUTIONS = {"Conv", "ConvTranspose"}
LAYERS = CONVOLUTIONS | {"Gemm", "MatMul"}
MOVES = {"Transpose", "Reshape", "Identity"}
"""Operators that may be between a weight and its layer."""


def audit_graph(model: onnx.ModelProto) -> dict[str, int]:
    """Return counts of the graph's nodes and of what its Q/DQ pairs are made of.

    ``quantized_convs`` counts convolutions whose input and weight both come through DequantizeLinear;
    ``unfolded_batchnorms`` those BatchNormalization nodes that alone read a convolution, the only one of its weights, which could have taken them in;
    ``int8_weights`` counts the weights stored as int8; ``{uint8,int8}_activations`` the QuantizeLinear nodes by type.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    types = Counter(node.op_type for node in model.graph.node)
    counts = {"nodes": len(model.graph.node), **{op: types[op] for op in ("Conv", "Gemm", "MatMul", "Add", "BatchNormalization")}}
    counts |= {op: types[op] for op in ("QuantizeLinear", "DequantizeLinear")}
    counts["quantized_convs"] = sum(
        node.op_type == "Conv" and all(_op(producers, name) == "DequantizeLinear" for name in node.input[:2]) for node in model.graph.node
    )
    uses = Counter(name for node in model.graph.node for name in node.input)
    counts["unfolded_batchnorms"] = sum(
        node.op_type == "BatchNormalization"
        and _op(producers, node.input[0]) in CONVOLUTIONS
        and uses[node.input[0]] == 1
        and uses[producers[node.input[0]].input[1]] == 1
        and producers[node.input[0]].input[1] in initializers
        for node in model.graph.node
    )
    dequantized = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    counts["int8_weights"] = sum(node.input[0] in initializers and initializers[node.input[0]].data_type == TensorProto.INT8 for node in dequantized)
    for data_type, name in INTEGERS.items():
        counts[f"{name}_activations"] = sum(
            node.op_type == "QuantizeLinear" and len(node.input) > 2 and _type(initializers, producers, node.input[2]) == data_type for node in model.graph.node
        )
    return counts


def require_same(before: dict[str, int], after: dict[str, int]) -> None:
    """Compare the audits around a simplification.

    Raises:
        BuildError: Q/DQ nodes, int8 weights or activation types changed.
    """
    changed = [
        f"{name} {before[name]} -> {after[name]}"
        for name in ("QuantizeLinear", "DequantizeLinear", "int8_weights", "uint8_activations", "int8_activations", "Conv")
        if before[name] != after[name]
    ]
    if changed:
        raise BuildError(f"the simplification changed the graph: {', '.join(changed)}")


def require_folded(model: onnx.ModelProto) -> None:
    """Check that no BatchNorm is left that a convolution could hold.

    Raises:
        BuildError: One is.
    """
    left = audit_graph(model)["unfolded_batchnorms"]
    if left:
        raise BuildError(f"{left} BatchNormalization nodes were not folded into their convolutions")


def float_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the convolutions and matrix products with a weight that a Q/DQ file leaves in float.

    A layer is named after its weight in the network. If a BatchNorm was folded into the weight, that name is lost and the node's name is
    used. Products of two activations have no weight and are not listed.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in (node for node in model.graph.node if node.op_type in LAYERS):
        weight = _before_moves(producers, node.input[1])
        quantized = _op(producers, weight) == "DequantizeLinear"
        if not quantized and weight not in initializers:
            continue
        if not quantized or _op(producers, node.input[0]) != "DequantizeLinear":
            name = producers[weight].input[0] if quantized else weight
            found.append(name.removesuffix(".weight") if name.endswith(".weight") else node.name)
    return tuple(found)


def count_quantised(model: onnx.ModelProto) -> int:
    """Return how many convolutions and matrix products read both their input and their weight from Q/DQ nodes."""
    producers = {name: node for node in model.graph.node for name in node.output}
    return sum(
        node.op_type in LAYERS
        and _op(producers, node.input[0]) == "DequantizeLinear"
        and _op(producers, _before_moves(producers, node.input[1])) == "DequantizeLinear"
        for node in model.graph.node
    )


def require_dialect(model: onnx.ModelProto, dialect: str, quantised: int = 0) -> None:
    """Check that a quantised graph is in the form that its runtime runs as INT8.

    Args:
        model: The graph.
        dialect: ``ort`` or ``trt``.
        quantised: Number of layers that are INT8 in the torch network; what else there is may be in float.

    Raises:
        BuildError: Fewer layers are INT8, or activations have the other dialect's type or zero-points.
    """
    found = count_quantised(model)
    if found < quantised:
        raise BuildError(f"{found} layers are INT8, {quantised} should be; in float: {', '.join(float_layers(model)) or 'none that have weights'}")
    counts = audit_graph(model)
    wrong = "int8" if dialect == "ort" else "uint8"
    if counts[f"{wrong}_activations"]:
        raise BuildError(f"{counts[f'{wrong}_activations']} activations are {wrong}: not the {dialect} dialect")
    if dialect == "trt" and any(numpy_helper.to_array(t).any() for t in model.graph.initializer if _is_zero_point(model, t.name)):
        raise BuildError("a zero-point is not 0: TensorRT refuses it")


def _before_moves(producers: dict[str, onnx.NodeProto], name: str) -> str:
    while _op(producers, name) in MOVES:
        name = producers[name].input[0]
    return name


def _op(producers: dict[str, onnx.NodeProto], name: str) -> str:
    return producers[name].op_type if name in producers else ""


def _type(initializers: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto], name: str) -> int:
    if name in initializers:
        return int(initializers[name].data_type)
    constant = producers.get(name)
    values = [a.t.data_type for a in constant.attribute if a.name == "value"] if constant is not None else []
    return int(values[0]) if values else 0


def _is_zero_point(model: onnx.ModelProto, name: str) -> bool:
    return any(len(node.input) > 2 and node.input[2] == name for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"})
