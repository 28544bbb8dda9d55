"""Simulated quantisation with learned step sizes (LSQ, Esser et al., arXiv 1902.08153).

Values are divided by the scale and then rounded, as ONNX QuantizeLinear does; torch's own fake-quantise
multiplies by the reciprocal, which rounds differently.
"""

from typing import Any

import torch
from torch import nn

from stages.artifacts import Dialect

CANDIDATES = 36
"""Scales that the calibration compares."""
SAMPLES = 8192
"""Values per batch that it compares them on, drawn at random: a fixed stride would see one column of pixels."""


class _LearnedStep(torch.autograd.Function):
    """x -> clamp(round(x / s), low, high) * s, with LSQ's gradients for x and s."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int, gradient_scale: float) -> torch.Tensor:
        ratio = x / scale
        rounded = ratio.round().clamp_(low, high)
        ctx.save_for_backward(ratio, rounded, scale)
        ctx.limits = (low, high, gradient_scale)
        return rounded * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        ratio, rounded, scale = ctx.saved_tensors
        low, high, gradient_scale = ctx.limits
        inside = (ratio >= low) & (ratio <= high)
        by_scale = gradient * torch.where(inside, rounded - ratio, rounded)
        over = [dim for dim in range(gradient.ndim) if scale.ndim == 0 or scale.shape[dim] == 1]
        by_scale = by_scale.sum() if scale.ndim == 0 else by_scale.sum(over, keepdim=True)
        return gradient * inside, by_scale * gradient_scale, None, None, None


class ActivationQuantizer(nn.Module):
    """One scale for a whole tensor.

    The grid depends on the dialect. ``ort`` (uint8): non-negative tensors 0..255 with zero-point 0, others
    -128..127 with zero-point 128. ``trt`` (int8, zero-point 0): non-negative tensors use 0..127.

    Args:
        non_negative: Whether the tensor never holds negative values (behind a ReLU).
        feeds_add: Whether the tensor is a convolution's output that is only added to a residual: TensorRT fuses
            convolution, add and ReLU only where this tensor is not quantised.
        dialect: The runtime family that is simulated.
    """

    holds_scales = True

    def __init__(self, *, non_negative: bool, feeds_add: bool, dialect: Dialect) -> None:
        super().__init__()
        self.non_negative = non_negative
        self.feeds_add = feeds_add
        self.dialect: Dialect = dialect
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.samples: list[torch.Tensor] | None = None

    def limits(self, dialect: Dialect) -> tuple[int, int]:
        """Return the lowest and highest integer of the grid, counted from the zero-point."""
        if not self.non_negative:
            return -128, 127
        return (0, 255) if dialect == "ort" else (0, 127)

    def scale_in(self, dialect: Dialect) -> float:
        """Return the scale that covers the learned range in another dialect."""
        scale = float(self.scale.detach().abs())
        return scale * self.limits(self.dialect)[1] / self.limits(dialect)[1]

    @property
    def active(self) -> bool:
        """Whether the tensor is quantised at all in the simulated dialect."""
        return not (self.feeds_add and self.dialect == "trt")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantise and dequantise (n, ...) float32; while calibrating, only look at it."""
        if self.samples is not None:
            flat = x.detach().flatten()
            chosen = torch.randint(len(flat), (SAMPLES,), generator=torch.Generator().manual_seed(len(self.samples)))
            self.samples.append(flat[chosen])
            return x
        if not self.active:
            return x
        low, high = self.limits(self.dialect)
        elements = x[0].numel()
        return _LearnedStep.apply(x, self.scale.abs(), low, high, (elements * high) ** -0.5)  # type: ignore[no-any-return, no-untyped-call]

    def calibrate(self) -> None:
        """Choose the scale of least squared error on the samples seen, and stop collecting."""
        samples = torch.cat(self.samples or [torch.ones(1)])
        self.samples = None
        low, high = self.limits(self.dialect)
        self.scale.data.copy_(best_scale(samples[None], low, high).squeeze())


class WeightQuantizer(nn.Module):
    """One scale per output channel, symmetric.

    Args:
        channels: Output channels.
        bits: 8, or 7 where the CPU's products of 8-bit numbers saturate.
    """

    holds_scales = True

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.high = 2 ** (bits - 1) - 1
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Quantise and dequantise (out, ...) float32."""
        scale = self.scale.abs().reshape(-1, *[1] * (weight.ndim - 1))
        return _LearnedStep.apply(weight, scale, -self.high, self.high, (weight[0].numel() * self.high) ** -0.5)  # type: ignore[no-any-return, no-untyped-call]

    def integers(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return the int8 weights that the engine will hold, (out, ...), for scales (out,) as they are stored there."""
        scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
        return (weight.detach() / scale).round().clamp(-self.high, self.high).to(torch.int8).contiguous()

    def calibrate(self, weight: torch.Tensor) -> None:
        """Choose every channel's scale of least squared error."""
        self.scale.data.copy_(best_scale(weight.detach().flatten(1), -self.high, self.high).squeeze(1))


def best_scale(rows: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Return the scale of least mean squared error for each row, among shrunken maxima.

    Args:
        rows: (r, n) float32.
        low: Lowest integer of the grid.
        high: Highest integer of the grid.

    Returns:
        (r, 1) float32, positive.
    """
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-8)
    best, least = largest / high, torch.full_like(largest, float("inf"))
    for shrink in torch.linspace(0.3, 1.0, CANDIDATES):
        scale = largest * shrink / high
        error = ((rows / scale).round().clamp(low, high) * scale - rows).square().mean(1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best
