"""An ONNX graph built node by node, with a Q/DQ pair wherever the exported network has one."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes.

    Args:
        quantized: Whether inputs are uint8, and weights int8.
        rng: Random generator of the values.

    Attributes:
        feeds: Inputs by name.
        quantized: Whether it is.
    """

    def __init__(self, *, quantized: bool, rng: np.random.Generator) -> None:
        self.feeds: dict[str, np.ndarray] = {}
        self.quantized = quantized
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Add a constant and return its name."""
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        """Add an input of random values; return the name of what reads it as float."""
        dtype = TensorProto.UINT8 if self.quantized else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self.feeds[name] = self._rng.integers(0, 255, shape, dtype=np.uint8) if self.quantized else self._rng.random(shape, dtype=np.float32)
        return self._dequantized(name) if self.quantized else name

    def weight(self, shape: tuple[int, ...], *, axis: int = 0) -> str:
        """Add a random weight with a scale for each place on its `axis`."""
        if not self.quantized:
            return self.constant(self._rng.standard_normal(shape, dtype=np.float32))
        integers = self.constant(self._rng.integers(-127, 127, shape, dtype=np.int8))
        scale = self.constant(np.full(shape[axis], 0.01, np.float32))
        return self.node("DequantizeLinear", [integers, scale, self.constant(np.zeros(shape[axis], np.int8))], axis=axis)

    def bias(self, channels: int) -> str:
        """Add a matrix product's bias: int32, as the exported network has it, or the product would be computed in float."""
        if not self.quantized:
            return self.constant(np.zeros(channels, np.float32))
        return self.node("DequantizeLinear", [self.constant(np.zeros(channels, np.int32)), self.constant(np.full(channels, 2e-4, np.float32))], axis=0)

    def scalar(self) -> str:
        """Add a constant of one value, on a grid where the graph is quantised."""
        return self._dequantized(self.constant(np.array(150, np.uint8))) if self.quantized else self.constant(np.array(3, np.float32))

    def requantized(self, name: str) -> str:
        """Quantise a tensor and read it as float again, where the graph is quantised."""
        return self._dequantized(self._quantize(name)) if self.quantized else name

    def output(self, name: str, shape: tuple[int, ...], *, quantized: bool) -> None:
        """Make a tensor the output: as uint8 where the graph is quantised and the tensor is `quantized` too."""
        quantized = quantized and self.quantized
        name = self._quantize(name) if quantized else name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8 if quantized else TensorProto.FLOAT, shape))

    def model(self, opset: int, ir_version: int) -> onnx.ModelProto:
        """Return the graph."""
        graph = helper.make_graph(self._nodes, "operator", self._inputs, self._outputs, self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)

    def _dequantized(self, name: str) -> str:
        return self.node("DequantizeLinear", [name, *self._grid()])

    def _quantize(self, name: str) -> str:
        return self.node("QuantizeLinear", [name, *self._grid()])

    def _grid(self) -> list[str]:
        return [self.constant(np.array(0.02, np.float32)), self.constant(np.array(0, np.uint8))]
