"""ONNX nodes of the operators that multiply no matrices."""

import math
from typing import Any

import numpy as np

from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.graph.operator_builder import Builder

Shape = tuple[int, ...]
UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {}),
    "mish": ("Mish", {}),
    "gelu": ("Gelu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "hardsigmoid": ("HardSigmoid", {}),
    "softmax": ("Softmax", {"axis": -1}),
    "global_pool": ("GlobalAveragePool", {}),
}
"""ONNX operator and attributes of a function with one input and no parameters."""


def shapes_of(operator: OperatorClass, channels: int, batch: int) -> tuple[Shape, Shape]:
    """Return the shapes of what an operator reads and writes.

    They are (n, c, h, w) as a rule, (n, t, c) of LayerNorm and softmax, and (n, groups, t, channels of a group) of groups such as attention heads.
    """
    if operator.group_channels is not None:
        shape: Shape = (batch, operator.num_groups(channels), operator.height * operator.width, operator.group_channels[0])
        return shape, shape
    if operator.op in {"layer_norm", "softmax"}:
        shape = (batch, operator.height * operator.width, channels)
        return shape, shape
    read = operator.reads
    if operator.op in {"max_pool", "avg_pool"}:  # an adaptive one may leave more at the edge than a window passes over
        read = tuple(min(side, end + step - 1) for side, end, step in zip(read, _reach(operator), operator.stride, strict=True))  # type: ignore[assignment]
    return (batch, channels, *read), (batch, channels, operator.height, operator.width)


def both_ends(padding: list[int]) -> list[int]:
    """Return ONNX's pads, at all starts and at all ends, given the padding of each side; none where it is negative."""
    whole = [max(each, 0) for each in padding]
    return [each // 2 for each in whole] + [each - each // 2 for each in whole]


def light_nodes(build: Builder, operator: OperatorClass, read: Shape) -> str:
    """Add an operator's input and nodes to a graph; return the name of its output.

    Args:
        build: The graph.
        operator: One that is light.
        read: Shape of what it reads.
    """
    op, channels = operator.op, read[1]
    if op == "concat":
        half = channels // 2
        parts = [build.input("x", (read[0], half, *read[2:]))] if half else []
        return build.node("Concat", [*parts, build.input("y", (read[0], channels - half, *read[2:]))], axis=1)
    x = build.input("x", read)
    if op in {"add", "mul"}:
        y = build.node(op.capitalize(), [x, build.input("y", read)])
        return build.node("Relu", [y]) if operator.epilogue == "relu" else y
    if op in {"silu", "hardswish"}:
        return _gated(build, op, x)
    if op in {"max_pool", "avg_pool"}:
        return _pool(build, operator, x, read)
    if op == "batch_norm":
        if not build.quantized:
            return build.node("BatchNormalization", [x, *(build.constant(np.ones(channels, np.float32)) for _ in range(4))])
        return _per_channel(build, x, channels, (1, 1))
    if op == "layer_norm":
        return build.node("LayerNormalization", [x, build.constant(np.ones(read[-1], np.float32)), build.constant(np.zeros(read[-1], np.float32))], axis=-1)
    if op == "group_norm":
        flat = build.node("Reshape", [x, build.constant(np.array([0, math.gcd(channels, 8), -1]))])
        ones = build.constant(np.ones(math.gcd(channels, 8), np.float32))
        return build.node("Reshape", [build.node("InstanceNormalization", [flat, ones, ones]), build.constant(np.array(read))])
    if op == "resize":
        scales = np.array([1, 1, operator.height / read[2], operator.width / read[3]], np.float32)
        return build.node("Resize", [x, "", build.constant(scales)], mode="nearest")
    kind, attributes = UNARY[op]
    return build.node(kind, [x], **attributes)


def _gated(build: Builder, op: str, x: str) -> str:
    """Add x * sigmoid(x), or x * hardsigmoid(x), in the parts that an export has."""
    if op == "silu":
        return build.node("Mul", [x, build.requantized(build.node("Sigmoid", [x]))])
    if not build.quantized:
        return build.node("HardSwish", [x])
    return build.node("Mul", [x, build.requantized(build.node("Add", [x, build.scalar()]))])


def _pool(build: Builder, operator: OperatorClass, x: str, read: Shape) -> str:
    pads = both_ends([end - inside for end, inside in zip(_reach(operator), read[2:], strict=True)])
    options = {"kernel_shape": operator.kernel, "strides": operator.stride, "pads": pads}
    if operator.op == "avg_pool" and build.quantized:
        return _per_channel(build, x, read[1], operator.kernel, **options)
    return build.node("MaxPool" if operator.op == "max_pool" else "AveragePool", [x], **options)


def _per_channel(build: Builder, x: str, channels: int, kernel: tuple[int, int], **options: Any) -> str:
    """Add the depthwise convolution that an averaging and a BatchNorm are exported as, since ONNX Runtime has a faster INT8 kernel for it."""
    return build.node("Conv", [x, build.weight((channels, 1, *kernel)), build.constant(np.zeros(channels, np.float32))], group=channels, **options)


def _reach(operator: OperatorClass) -> list[int]:
    """Return the height and width that a pooling's windows cover."""
    size = operator.height, operator.width
    return [(places - 1) * step + taps for places, step, taps in zip(size, operator.stride, operator.kernel, strict=True)]
