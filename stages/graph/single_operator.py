"""ONNX graphs of one operator in its context: a convolution with its epilogue and its Q/DQ pairs."""

from typing import Any

import numpy as np
import onnx

from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Precision
from bonsai.stages.graph.light_nodes import both_ends, light_nodes, shapes_of
from bonsai.stages.graph.operator_builder import Builder

OPSET, IR_VERSION = 20, 10


def single_operator_graph(operator: OperatorClass, ci: int, co: int, *, batch: int, precision: Precision) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a graph with random weights, in the dialect of ONNX Runtime, and inputs for it.

    Args:
        operator: The operator to build.
        ci: Input channels, a multiple of the operator's groups.
        co: Output channels, a multiple of the operator's groups.
        batch: Images per inference.
        precision: ``fp32``, or ``int8``: the inputs are then uint8 already; of an operator without a precision of its own.
    """
    rng = np.random.default_rng(0)
    build = Builder(quantized=(operator.precision or precision) == "int8", rng=rng)
    if operator.op == "linear":
        _linear(build, operator, ci, co, batch)
    elif operator.op == "matmul":
        _matmul(build, operator, ci, co, batch)
    elif operator.is_light:
        read, written = shapes_of(operator, ci, batch)
        build.output(light_nodes(build, operator, read), written, quantized=True)
    else:
        _convolution(build, operator, ci, co, batch)
    return build.model(OPSET, IR_VERSION), build.feeds


def _linear(build: Builder, operator: OperatorClass, ci: int, co: int, batch: int) -> None:
    """Add a layer on one row an image as Gemm, one on tokens as MatMul and Add, as they are exported."""
    if operator.tokens == 1:
        y = build.node("Gemm", [build.input("x", (batch, ci)), build.weight((co, ci)), build.bias(co)], transB=1)
        build.output(y, (batch, co), quantized=False)
        return
    product = build.node("MatMul", [build.input("x", (batch, operator.tokens, ci)), build.weight((ci, co), axis=1)])
    y = build.node("Add", [product, build.bias(co)])
    build.output(y, (batch, operator.tokens, co), quantized=True)


def _matmul(build: Builder, operator: OperatorClass, ci: int, co: int, batch: int) -> None:
    """Add a product of two tensors that both depend on the image."""
    heads = operator.num_groups(ci)
    inner, outer = ci // heads, co // heads
    first, second = build.input("x", (batch, heads, operator.tokens, inner)), build.input("y", (batch, heads, inner, outer))
    build.output(build.node("MatMul", [first, second]), (batch, heads, operator.tokens, outer), quantized=True)


def _convolution(build: Builder, operator: OperatorClass, ci: int, co: int, batch: int) -> None:
    """Add a convolution, transposed or of one dimension too, with what is fused behind it."""
    groups, transposed = operator.num_groups(ci), operator.op == "conv_transposed"
    first = 1 if operator.op == "conv1d" else 0  # sides that it has, of height and width
    read, size, kernel = operator.reads[first:], (operator.height, operator.width)[first:], operator.kernel[first:]
    stride, dilation = operator.stride[first:], operator.dilation[first:]
    options: dict[str, Any] = {"strides": stride, "dilations": dilation, "group": groups}
    narrow, wide = (read, size) if transposed else (size, read)
    reach = [(places - 1) * step + (taps - 1) * far + 1 for places, step, taps, far in zip(narrow, stride, kernel, dilation, strict=True)]
    options["pads"] = both_ends([end - inside for end, inside in zip(reach, wide, strict=True)])
    if transposed:
        options["output_padding"] = [max(inside - end, 0) for end, inside in zip(reach, wide, strict=True)]
    shape = (ci, co // groups, *kernel) if transposed else (co, ci // groups, *kernel)
    x = build.input("x", (batch, ci, *read))
    weight = build.weight(shape, axis=1 if transposed else 0)
    y = build.node("ConvTranspose" if transposed else "Conv", [x, weight, build.constant(np.zeros(co, np.float32))], **options)
    out = (batch, co, *size)
    if operator.epilogue.startswith("add"):
        y = build.node("Add", [build.requantized(y), build.input("residual", out)])
    if operator.epilogue.endswith("relu"):
        y = build.node("Relu", [y])
    build.output(y, out, quantized=True)
