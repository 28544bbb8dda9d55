"""2:4 sparsity: of every four weights in a row along a layer's inputs, two are zero. NVIDIA's GPUs since Ampere have kernels for it."""

import numpy as np
import onnx
from onnx import numpy_helper

from bonsai.stages.graph.audit import MOVES

RUN = 4
"""Weights in a row."""
MOST = 2
"""Of which this many may be other than zero."""


def count_sparse(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many layers a library could run as sparse, and how many of them have 2:4 weights in every place.

    Counted are convolutions without groups and products with a constant weight, quantised or not, whose inputs are a multiple of four.

    Returns:
        ``sparse_eligible_layers`` and ``sparse_layers``.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found = [is_sparse(rows) for node in model.graph.node if (rows := _rows(node, weights, producers)) is not None]
    return {"sparse_eligible_layers": len(found), "sparse_layers": sum(found)}


def is_sparse(rows: np.ndarray) -> bool:
    """Return whether of every four weights in a row at most two are other than zero; rows are (..., a multiple of four)."""
    return bool((np.count_nonzero(rows.reshape(-1, RUN), axis=1) <= MOST).all())


def _rows(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto]) -> np.ndarray | None:
    """Return a layer's weight with its inputs last, or None for a node that no sparse kernel computes."""
    if node.op_type not in {"Conv", "Gemm", "MatMul"}:
        return None
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    name, moves = node.input[1], list[onnx.NodeProto]()
    while name in producers and producers[name].op_type in MOVES | {"DequantizeLinear"}:
        moves.append(producers[name])
        name = producers[name].input[0]
    if name not in weights or attributes.get("group", 1) > 1:
        return None
    value = numpy_helper.to_array(weights[name])
    for move in reversed(moves):
        if move.op_type == "Transpose":
            value = value.transpose(next((tuple(each.ints) for each in move.attribute if each.name == "perm"), None))
        elif move.op_type == "Reshape":
            if move.input[1] not in weights:
                return None
            value = value.reshape(tuple(numpy_helper.to_array(weights[move.input[1]])))
    inputs = 1 if node.op_type == "Conv" or attributes.get("transB", 0) else value.ndim - 2
    return np.moveaxis(value, inputs, -1) if value.ndim > 1 and value.shape[inputs] % RUN == 0 else None
