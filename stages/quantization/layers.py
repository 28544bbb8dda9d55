"""Convolution and linear layer that compute as the INT8 engine will."""

import torch
from torch import nn
from torch.nn import functional

from stages.quantization.quantizers import WeightQuantizer


class QuantConv2d(nn.Module):
    """A convolution with its BatchNorm, whose folded weights are quantised.

    In training the fold uses the running variance for the quantised weights and the batch's own statistics for
    the normalisation (Krishnamoorthi, arXiv 1806.08342, section 3.2.2); frozen and in evaluation it is the
    exact fold that the engine holds.
    """

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, weight_bits: int) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn
        self.weight_quantizer = WeightQuantizer(conv.out_channels, weight_bits)
        self.frozen = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        weight, bias = self.folded()
        weight = self.weight_quantizer(weight)
        if self.bn is None or self.frozen or not self.training:
            return self._convolve(x, weight, bias)
        convolved = self._convolve(x, weight, None) / self._ratio().reshape(1, -1, 1, 1)
        if self.conv.bias is not None:  # cancels here, but the running mean must count it as the fold does
            convolved = convolved + self.conv.bias.reshape(1, -1, 1, 1)
        normalised: torch.Tensor = self.bn(convolved)
        return normalised

    def folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the weight (out, in, k, k) and bias (out,) with BatchNorm folded in."""
        if self.bn is None:
            return self.conv.weight, self.conv.bias
        ratio = self._ratio()
        assert self.bn.running_mean is not None
        centre = self.bn.running_mean if self.conv.bias is None else self.bn.running_mean - self.conv.bias
        return self.conv.weight * ratio.reshape(-1, 1, 1, 1), self.bn.bias - centre * ratio

    def calibrate(self) -> None:
        """Choose the weight scales of least squared error."""
        self.weight_quantizer.calibrate(self.folded()[0])

    def _ratio(self) -> torch.Tensor:
        """Return gamma / sigma per channel, kept away from 0 because the training forward divides by it."""
        assert self.bn is not None and self.bn.running_var is not None
        ratio = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        return torch.where(ratio.abs() < 1e-6, torch.full_like(ratio, 1e-6), ratio)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        conv = self.conv
        return functional.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class QuantLinear(nn.Module):
    """A linear layer with quantised weights."""

    def __init__(self, linear: nn.Linear, weight_bits: int) -> None:
        super().__init__()
        self.linear = linear
        self.weight_quantizer = WeightQuantizer(linear.out_features, weight_bits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in) to (n, out)."""
        return functional.linear(x, self.weight_quantizer(self.linear.weight), self.linear.bias)

    def calibrate(self) -> None:
        """Choose the weight scales of least squared error."""
        self.weight_quantizer.calibrate(self.linear.weight)
