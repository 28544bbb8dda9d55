"""Convolution, linear layer and BatchNorm that compute as the INT8 engine will."""

import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.quantization.quantizers import WeightQuantizer

Convolution = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d
"""What runs as INT8: over a series, over an image, or transposed over an image."""
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


class QuantConvolution(nn.Module):
    """A convolution over images or series, transposed or not, with its BatchNorm, whose folded weights are quantised.

    In training the fold uses the running variance for the quantised weights and the batch's own statistics for
    the normalisation (Krishnamoorthi, arXiv 1806.08342, section 3.2.2); frozen and in evaluation it is the
    exact fold that the engine holds.
    """

    def __init__(self, conv: Convolution, bn: BatchNorm | None, weight_bits: int) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn
        axis = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
        self.weight_quantizer = WeightQuantizer(conv.weight.shape[axis], weight_bits, axis)
        self.frozen = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, h, w) to (n, out, h', w'), or (n, in, t) to (n, out, t')."""
        as_evaluated = self.bn is None or self.frozen or not self.training
        weight, bias = self.folded(divisible=not as_evaluated)
        weight = self.weight_quantizer(weight)
        if self.bn is None or as_evaluated:
            return convolve(self.conv, x, weight, bias)
        by_channel = (1, -1, *(1,) * (x.ndim - 2))
        convolved = convolve(self.conv, x, weight, None) / fold_ratio(self.bn, divisible=True).reshape(by_channel)
        if self.conv.bias is not None:  # cancels here, but the running mean must count it as the fold does
            convolved = convolved + self.conv.bias.reshape(by_channel)
        normalised: torch.Tensor = self.bn(convolved)
        return normalised

    def folded(self, *, divisible: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the weight, in the layer's own layout, and bias (out,) with BatchNorm folded in; see `fold_ratio`."""
        if self.bn is None:
            return self.conv.weight, self.conv.bias
        ratio = fold_ratio(self.bn, divisible=divisible)
        assert self.bn.running_mean is not None
        centre = self.bn.running_mean if self.conv.bias is None else self.bn.running_mean - self.conv.bias
        return scaled_by_output(self.conv, ratio), self.bn.bias - centre * ratio

    def calibrate(self) -> None:
        """Choose the weight scales of least squared error."""
        self.weight_quantizer.calibrate(self.folded(divisible=True)[0])


class QuantLinear(nn.Module):
    """A linear layer with quantised weights."""

    def __init__(self, linear: nn.Linear, weight_bits: int) -> None:
        super().__init__()
        self.linear = linear
        self.weight_quantizer = WeightQuantizer(linear.out_features, weight_bits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        return functional.linear(x, self.weight_quantizer(self.linear.weight), self.linear.bias)

    def calibrate(self) -> None:
        """Choose the weight scales of least squared error."""
        self.weight_quantizer.calibrate(self.linear.weight)


class LoneBatchNorm(nn.Module):
    """A BatchNorm that no convolution precedes, as behind a concatenation: one factor and one summand per channel.

    Attributes:
        weight_bits: Of the depthwise convolution that it is exported as where that is faster; one weight per channel is exact.
    """

    def __init__(self, bn: BatchNorm, weight_bits: int) -> None:
        super().__init__()
        self.bn = bn
        self.weight_bits = weight_bits
        self.frozen = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, ...) to the same shape."""
        bn = self.bn
        if not self.frozen:
            normalised: torch.Tensor = bn(x)
            return normalised
        return functional.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def convolve(conv: Convolution, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Do what `conv` does, with other weights."""
    if isinstance(conv, nn.ConvTranspose2d):
        return functional.conv_transpose2d(x, weight, bias, conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation)  # type: ignore[arg-type]
    over = functional.conv1d if isinstance(conv, nn.Conv1d) else functional.conv2d
    return over(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def scaled_by_output(conv: Convolution, ratio: torch.Tensor) -> torch.Tensor:
    """Return the weights, each times its output channel's ratio (out,)."""
    if not isinstance(conv, nn.ConvTranspose2d):
        return conv.weight * ratio.reshape(-1, *(1,) * (conv.weight.ndim - 1))
    by_group = ratio.reshape(conv.groups, 1, -1, 1, 1).expand(-1, conv.in_channels // conv.groups, -1, 1, 1)
    return conv.weight * by_group.flatten(0, 1)  # (in, out / groups, k, k)


def fold_ratio(bn: BatchNorm, *, divisible: bool = False) -> torch.Tensor:
    """Return gamma / sigma per channel.

    Args:
        bn: Whose running variance counts.
        divisible: Keep it away from 0, because the training forward divides by it. In evaluation a dead channel is dead: what
            is left of it a later layer could multiply by large weights.
    """
    assert bn.running_var is not None
    ratio = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    if not divisible:
        return ratio
    return torch.where(ratio.abs() < 1e-6, torch.full_like(ratio, 1e-6), ratio)
