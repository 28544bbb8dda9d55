"""ONNX graphs of one operator in its context: a convolution with its epilogue and its Q/DQ pairs."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from profiles.latency import OperatorClass
from profiles.schema import Precision

OPSET, IR_VERSION = 20, 10


def single_operator_graph(operator: OperatorClass, ci: int, co: int, *, batch: int, precision: Precision) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a graph with random weights, in the dialect of ONNX Runtime, and inputs for it.

    Args:
        operator: What to build.
        ci: Input channels.
        co: Output channels.
        batch: Images per inference.
        precision: ``fp32``, or ``int8``: the inputs are then uint8 already.
    """
    rng = np.random.default_rng(0)
    build = _Builder(quantized=precision == "int8", rng=rng)
    if operator.op == "linear":
        x = build.input("x", (batch, ci))
        y = build.node("Gemm", [x, build.weight((co, ci)), build.bias(co)], transB=1)
        build.output(y, (batch, co), quantized=False)
        return build.model(), build.feeds
    side = (operator.height * operator.stride, operator.width * operator.stride)
    x = build.input("x", (batch, ci, *side))
    kernel = (co, 1 if operator.depthwise else ci, operator.kernel, operator.kernel)
    y = build.node(
        "Conv",
        [x, build.weight(kernel), build.constant(np.zeros(co, np.float32))],
        strides=[operator.stride] * 2,
        pads=[operator.kernel // 2] * 4,
        group=ci if operator.depthwise else 1,
    )
    shape = (batch, co, operator.height, operator.width)
    if operator.epilogue.startswith("add"):
        y = build.node("Add", [build.requantized(y), build.input("residual", shape)])
    if operator.epilogue.endswith("relu"):
        y = build.node("Relu", [y])
    build.output(y, shape, quantized=precision == "int8")
    return build.model(), build.feeds


class _Builder:
    """Collects nodes; with `quantized`, puts a Q/DQ pair wherever the exported network has one."""

    def __init__(self, *, quantized: bool, rng: np.random.Generator) -> None:
        self.feeds: dict[str, np.ndarray] = {}
        self._quantized = quantized
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        dtype = TensorProto.UINT8 if self._quantized else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self.feeds[name] = self._rng.integers(0, 255, shape, dtype=np.uint8) if self._quantized else self._rng.random(shape, dtype=np.float32)
        return self._dequantized(name) if self._quantized else name

    def weight(self, shape: tuple[int, ...]) -> str:
        if not self._quantized:
            return self.constant(self._rng.standard_normal(shape, dtype=np.float32))
        integers = self.constant(self._rng.integers(-127, 127, shape, dtype=np.int8))
        scale = self.constant(np.full(shape[0], 0.01, np.float32))
        return self.node("DequantizeLinear", [integers, scale, self.constant(np.zeros(shape[0], np.int8))], axis=0)

    def bias(self, channels: int) -> str:
        """Add a matrix product's bias: int32, as the exported network has it, or the product would be computed in float."""
        if not self._quantized:
            return self.constant(np.zeros(channels, np.float32))
        return self.node("DequantizeLinear", [self.constant(np.zeros(channels, np.int32)), self.constant(np.full(channels, 2e-4, np.float32))], axis=0)

    def requantized(self, name: str) -> str:
        return self._dequantized(self._quantize(name)) if self._quantized else name

    def output(self, name: str, shape: tuple[int, ...], *, quantized: bool) -> None:
        name = self._quantize(name) if quantized else name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8 if quantized else TensorProto.FLOAT, shape))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "operator", self._inputs, self._outputs, self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _dequantized(self, name: str) -> str:
        return self.node("DequantizeLinear", [name, *self._grid()])

    def _quantize(self, name: str) -> str:
        return self.node("QuantizeLinear", [name, *self._grid()])

    def _grid(self) -> list[str]:
        return [self.constant(np.array(0.02, np.float32)), self.constant(np.array(0, np.uint8))]
