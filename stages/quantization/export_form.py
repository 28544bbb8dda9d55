"""A quantised network in the form that is exported: int8 weights, QuantizeLinear and DequantizeLinear."""

import copy

import torch
from torch import fx, nn
from torch.nn import functional

from stages.artifacts import Dialect
from stages.quantization.layers import QuantConv2d, QuantLinear
from stages.quantization.quantizers import ActivationQuantizer

BASE_OPSET = 18
"""torch builds its graphs at this opset and converts them upwards."""


class QdqTensor(nn.Module):
    """QuantizeLinear and DequantizeLinear on an activation."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, quantizer: ActivationQuantizer, dialect: Dialect) -> None:
        super().__init__()
        signed_in_ort = dialect == "ort" and not quantizer.non_negative
        self.dtype = torch.uint8 if dialect == "ort" else torch.int8
        self.register_buffer("scale", torch.tensor(quantizer.scale_in(dialect)))
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

    def __init__(self, integers: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", integers)
        self.register_buffer("scale", scale.detach().abs().clone())
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int8))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def dequantized(self) -> torch.Tensor:
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", [self.weight, self.scale, self.zero_point], attrs={"axis": 0}, dtype=torch.float32, shape=self.weight.shape, version=BASE_OPSET
        )


class QdqConv2d(_QdqWeight):
    """A convolution of int8 weights with BatchNorm folded in."""

    def __init__(self, layer: QuantConv2d) -> None:
        weight, bias = layer.folded()
        super().__init__(layer.weight_quantizer.integers(weight), layer.weight_quantizer.scale, bias)
        conv = layer.conv
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        return functional.conv2d(x, self.dequantized(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class QdqLinear(_QdqWeight):
    """A linear layer of int8 weights."""

    def __init__(self, layer: QuantLinear) -> None:
        super().__init__(layer.weight_quantizer.integers(layer.linear.weight), layer.weight_quantizer.scale, layer.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in) to (n, out)."""
        return functional.linear(x, self.dequantized(), self.bias)


def to_export_form(network: fx.GraphModule, dialect: Dialect) -> fx.GraphModule:
    """Return a copy of a quantised network that exports to Q/DQ ONNX in `dialect`."""
    exported = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, QuantConv2d):
            exported.set_submodule(name, QdqConv2d(module))
        elif isinstance(module, QuantLinear):
            exported.set_submodule(name, QdqLinear(module))
        elif isinstance(module, ActivationQuantizer):
            dropped = dialect == "trt" and module.feeds_add
            exported.set_submodule(name, nn.Identity() if dropped else QdqTensor(module, dialect))
    return exported
