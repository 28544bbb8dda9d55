"""Modules that are exported as QuantizeLinear and DequantizeLinear, and the operations between them."""

import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.quantization.layers import Convolution, convolve
from bonsai.stages.quantization.quantizers import ActivationQuantizer
from bonsai.stages.quantization.records import GATE_LEVELS

BASE_OPSET = 18
"""torch builds its graphs at this opset and converts them upwards."""
SMALLEST_HALF = 2.0**-14
"""Smallest scale in FP16. Smaller ones are subnormal there and lose digits."""


class QdqTensor(nn.Module):
    """QuantizeLinear and DequantizeLinear on an activation.

    Args:
        scale: Scale of the grid.
        zero_point: Zero-point of the grid.
        dtype: uint8 or int8.
        restored: Scale to dequantise by, if another.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    restored: torch.Tensor | None

    def __init__(self, scale: float, zero_point: int, dtype: torch.dtype, *, restored: float | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=dtype))
        self.register_buffer("restored", None if restored is None else torch.tensor(restored))

    @classmethod
    def of(cls, quantizer: ActivationQuantizer, dialect: Dialect, float_type: FloatType) -> "QdqTensor":
        """Return the form of a quantiser in a dialect."""
        scale = float(as_stored(torch.tensor(quantizer.scale_in(dialect)), float_type))
        if dialect == "trt":
            return cls(scale, 0, torch.int8)
        return cls(scale, quantizer.zero_point_in(dialect), torch.uint8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Emit the pair of nodes; shapes stay as they are."""
        quantized = torch.onnx.ops.symbolic("QuantizeLinear", [x, self.scale, self.zero_point], dtype=self.dtype, shape=x.shape, version=BASE_OPSET)
        return dequantize(quantized, self.scale if self.restored is None else self.restored, self.zero_point)


class QdqConvolution(nn.Module):
    """A convolution of int8 weights, dequantised per output channel.

    Args:
        conv: Gives stride, padding and so on; its weights are not used.
        weight: int8, in the layout of `conv`.
        scale: (channels,) float32.
        bias: (out,) float32.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, conv: Convolution, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.axis = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
        self.conv = (conv,)  # in a tuple it is no submodule, and its weights are not exported
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int8))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, h, w) to (n, out, h', w'), or (n, in, t) to (n, out, t')."""
        return convolve(self.conv[0], x, dequantize(self.weight, self.scale, self.zero_point, axis=self.axis), self.bias)


class QdqLinear(nn.Module):
    """A linear layer of int8 weights.

    Args:
        weight: (out, in) int8.
        scale: (out,) float32.
        bias: (out,) float32, or int32 on the grid of the products.
        bias_scale: (out,) that grid, if `bias` is int32: without it ONNX Runtime multiplies in float where no QuantizeLinear follows.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    bias: torch.Tensor | None
    bias_scale: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, bias_scale: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int8))
        self.register_buffer("bias", bias)
        self.register_buffer("bias_scale", bias_scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        bias = self.bias if self.bias is None or self.bias_scale is None else dequantize(self.bias, self.bias_scale, None, axis=0)
        return functional.linear(x, dequantize(self.weight, self.scale, self.zero_point, axis=0), bias)


class QdqGatedActivation(nn.Module):
    """SiLU or hardswish in parts that ONNX Runtime has INT8 kernels for.

    hardswish(x) = x * min(max(x + 3, 0), 6) / 6: the sum's grid ends at 0 and 6, and is read as one from 0 to 1.
    """

    three: torch.Tensor
    three_scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        step = 1 / GATE_LEVELS
        self.gate = QdqTensor(step if kind == "silu" else 6 * step, 0, torch.uint8, restored=step)
        self.register_buffer("three", torch.tensor(GATE_LEVELS, dtype=torch.uint8))
        self.register_buffer("three_scale", torch.tensor(3 * step))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map a tensor to one of the same shape."""
        gate = torch.sigmoid(x) if self.kind == "silu" else x + dequantize(self.three, self.three_scale, self.zero_point)
        gated: torch.Tensor = x * self.gate(gate)
        return gated


class OnnxGlobalAverage(nn.Module):
    """GlobalAveragePool: torch's exporter writes ReduceMean, which ONNX Runtime computes in float."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to (n, c, 1, 1), and (n, c, t) to (n, c, 1)."""
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2))
        return torch.onnx.ops.symbolic("GlobalAveragePool", [x], dtype=x.dtype, shape=shape, version=BASE_OPSET)


def as_stored(scale: torch.Tensor, float_type: FloatType) -> torch.Tensor:
    """Return float32 scales at values that the file's float type holds exactly."""
    return scale.clamp_min(SMALLEST_HALF).half().float() if float_type == "fp16" else scale


def dequantize(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, *, axis: int | None = None) -> torch.Tensor:
    """Emit DequantizeLinear, along `axis` where there are several scales."""
    inputs = [x, scale] if zero_point is None else [x, scale, zero_point]
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", inputs, attrs=None if axis is None else {"axis": axis}, dtype=scale.dtype, shape=x.shape, version=BASE_OPSET
    )
