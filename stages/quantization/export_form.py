"""A quantised network in the form that is exported: int8 weights, QuantizeLinear and DequantizeLinear."""

import copy

import torch
from torch import fx, nn
from torch.nn import functional

from stages.artifacts import Dialect, FloatType
from stages.quantization.layers import QuantConv2d, QuantLinear
from stages.quantization.quantizers import ActivationQuantizer, WeightQuantizer

BASE_OPSET = 18
"""torch builds its graphs at this opset and converts them upwards."""
SMALLEST_HALF = 2.0**-14
"""Of the scales in FP16: smaller ones are subnormal there, and lose digits."""


class QdqTensor(nn.Module):
    """QuantizeLinear and DequantizeLinear on an activation."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, quantizer: ActivationQuantizer, dialect: Dialect, float_type: FloatType) -> None:
        super().__init__()
        signed_in_ort = dialect == "ort" and not quantizer.non_negative
        self.dtype = torch.uint8 if dialect == "ort" else torch.int8
        self.register_buffer("scale", _as_stored(torch.tensor(quantizer.scale_in(dialect)), float_type))
        self.register_buffer("zero_point", torch.tensor(128 if signed_in_ort else 0, dtype=self.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Emit the pair of nodes; shapes stay as they are."""
        quantized = torch.onnx.ops.symbolic("QuantizeLinear", [x, self.scale, self.zero_point], dtype=self.dtype, shape=x.shape, version=BASE_OPSET)
        return torch.onnx.ops.symbolic("DequantizeLinear", [quantized, self.scale, self.zero_point], dtype=x.dtype, shape=x.shape, version=BASE_OPSET)


class _QdqWeight(nn.Module):
    """A layer whose int8 weight is dequantised per output channel."""

    weight: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, quantizer: WeightQuantizer, bias: torch.Tensor | None, float_type: FloatType) -> None:
        super().__init__()
        scale = _as_stored(quantizer.scale.detach().abs(), float_type)
        self.register_buffer("weight", quantizer.integers(weight, scale))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int8))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def dequantized(self) -> torch.Tensor:
        inputs = [self.weight, self.scale, self.zero_point]
        return torch.onnx.ops.symbolic("DequantizeLinear", inputs, attrs={"axis": 0}, dtype=self.scale.dtype, shape=self.weight.shape, version=BASE_OPSET)


class QdqConv2d(_QdqWeight):
    """A convolution of int8 weights with BatchNorm folded in."""

    def __init__(self, layer: QuantConv2d, float_type: FloatType) -> None:
        weight, bias = layer.folded()
        super().__init__(weight, layer.weight_quantizer, bias, float_type)
        conv = layer.conv
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        return functional.conv2d(x, self.dequantized(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class QdqLinear(_QdqWeight):
    """A linear layer of int8 weights."""

    def __init__(self, layer: QuantLinear, float_type: FloatType) -> None:
        super().__init__(layer.linear.weight, layer.weight_quantizer, layer.linear.bias, float_type)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in) to (n, out)."""
        return functional.linear(x, self.dequantized(), self.bias)


def to_export_form(network: fx.GraphModule, dialect: Dialect, float_type: FloatType = "fp32") -> fx.GraphModule:
    """Return a copy of a quantised network that exports to Q/DQ ONNX in `dialect`, with scales that `float_type` can hold."""
    exported = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, QuantConv2d):
            exported.set_submodule(name, QdqConv2d(module, float_type))
        elif isinstance(module, QuantLinear):
            exported.set_submodule(name, QdqLinear(module, float_type))
        elif isinstance(module, ActivationQuantizer):
            dropped = dialect == "trt" and module.feeds_add
            exported.set_submodule(name, nn.Identity() if dropped else QdqTensor(module, dialect, float_type))
    return exported


def _as_stored(scale: torch.Tensor, float_type: FloatType) -> torch.Tensor:
    """Return float32 scales at values that the file's float type holds exactly."""
    return scale.clamp_min(SMALLEST_HALF).half().float() if float_type == "fp16" else scale.clone()
