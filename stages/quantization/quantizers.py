"""Simulated quantisation with learned step sizes (LSQ, Esser et al., arXiv 1902.08153).

Values are divided by the scale and then rounded, as ONNX QuantizeLinear does; torch's own fake-quantise
multiplies by the reciprocal, which rounds differently.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bonsai.stages.graph.onnx_graph import Dialect

CANDIDATES = 36
"""Number of scales that calibration compares."""
LEVELS, MIDDLE = 255, 128
"""Highest integer of a uint8, and the zero-point of a symmetric grid of them."""
WORTH = 0.9
"""A shifted grid is used only if its squared error is below this fraction of the symmetric grid's."""
SAMPLES = 8192
"""Number of values per batch that calibration uses. They are drawn at random; a fixed stride could hit a single column of pixels."""


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
    """Quantises a tensor with one scale.

    The grid depends on the dialect. ``ort`` uses uint8, 0..255: non-negative tensors with zero-point 0, others with a zero-point that calibration
    chooses. (After SiLU, GELU or hardswish, most of the negative half of a symmetric grid would never be used.) ``trt`` uses int8 with zero-point 0,
    because TensorRT refuses other zero-points: 0..127 for non-negative tensors, -128..127 for others. Training changes only the scale.

    Args:
        non_negative: Whether the tensor never holds negative values (behind a ReLU).
        fused_in_trt: Whether TensorRT fuses what computes the tensor with its only reader, a residual addition or an
            activation, which it does only where the tensor is not quantised.
        dialect: The runtime family that is simulated.
        highest: Value that the grid must not exceed: ONNX Runtime drops the clip of a ReLU6, and computes the convolution
            before it in INT8, only where the grid ends at 6 or below.
    """

    holds_scales = True
    zero_point: torch.Tensor

    def __init__(self, *, non_negative: bool, fused_in_trt: bool, dialect: Dialect, highest: float | None = None) -> None:
        super().__init__()
        self.non_negative = non_negative
        self.fused_in_trt = fused_in_trt
        self.dialect: Dialect = dialect
        self.highest = highest
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.samples: list[torch.Tensor] | None = None
        self.passes = False
        self.register_buffer("zero_point", torch.tensor(0 if non_negative else MIDDLE))

    def limits(self, dialect: Dialect) -> tuple[int, int]:
        """Return the lowest and highest integer of the grid, counted from the zero-point."""
        if dialect == "trt":
            return (0, 127) if self.non_negative else (-128, 127)
        zero_point = self.zero_point_in(dialect)
        return -zero_point, LEVELS - zero_point

    def zero_point_in(self, dialect: Dialect) -> int:
        """Return the integer that stands for 0 in a dialect's file."""
        return int(self.zero_point) if dialect == "ort" else 0

    def scale_in(self, dialect: Dialect) -> float:
        """Return the scale that covers the learned range in another dialect."""
        scale = float(self.step().detach())
        return scale * self._reach(self.dialect) / self._reach(dialect)

    def _reach(self, dialect: Dialect) -> int:
        """Return how many steps the grid goes from zero, to its longer side."""
        low, high = self.limits(dialect)
        return max(-low - 1, high)

    def step(self) -> torch.Tensor:
        """Return the scale in use, positive; where `highest` holds it back, gradients still reach the learned one."""
        scale = self.scale.abs()
        if self.highest is None:
            return scale
        largest = self.highest / self.limits(self.dialect)[1] * (1 - 1e-6)  # rounded, it must not exceed `highest`
        return scale - (scale - largest).clamp_min(0).detach()

    @property
    def active(self) -> bool:
        """Whether the tensor is quantised at all in the simulated dialect."""
        return not (self.fused_in_trt and self.dialect == "trt")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantise and dequantise (n, ...) float32; while calibrating, only look at it."""
        if self.samples is not None:
            flat = x.detach().flatten()
            chosen = torch.randint(len(flat), (SAMPLES,), generator=torch.Generator().manual_seed(len(self.samples)))
            self.samples.append(flat[chosen])
            return x
        if not self.active:
            return x
        if self.passes:
            return x.clone()  # a tensor of its own, as behind rounding: an operation in place must not reach the one before
        low, high = self.limits(self.dialect)
        elements = x[0].numel()
        return learned_step(x, self.step(), low, high, (elements * self._reach(self.dialect)) ** -0.5)

    def calibrate(self) -> None:
        """Choose the grid of least squared error on the samples seen, a symmetric one where that is as good, and stop collecting."""
        samples = torch.cat(self.samples or [torch.ones(1)])
        self.samples = None
        if not self.non_negative:
            self.zero_point.fill_(MIDDLE)
        low, high = self.limits(self.dialect)
        scale = best_scale(samples[None], low, high).squeeze()
        if self.dialect == "ort" and not self.non_negative:
            shifted, zero_point = best_shifted(samples, LEVELS)
            errors = [squared_error(samples, each, *limits) for each, limits in ((scale, (low, high)), (shifted, (-zero_point, LEVELS - zero_point)))]
            if errors[1] < WORTH * errors[0]:
                scale = shifted
                self.zero_point.fill_(zero_point)
        self.scale.data.copy_(scale)


class WeightQuantizer(nn.Module):
    """One scale per output channel, symmetric.

    Args:
        channels: Output channels; of each group, where a transposed convolution has several.
        bits: 8, or 7 where the CPU's products of 8-bit numbers saturate.
        axis: The weight's dimension that holds them.
    """

    holds_scales = True

    def __init__(self, channels: int, bits: int, axis: int = 0) -> None:
        super().__init__()
        self.high = highest_weight(bits)
        self.axis = axis
        self.scale = nn.Parameter(torch.ones(channels))
        self.passes = False

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Quantise and dequantise a weight, float32."""
        if self.passes:
            return weight
        scale = along(self.scale.abs(), weight, self.axis)
        return learned_step(weight, scale, -self.high, self.high, (weight.numel() / len(self.scale) * self.high) ** -0.5)

    def integers(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return the int8 weights that the engine will hold at these scales (channels,), as they are stored there."""
        return (weight.detach() / along(scale, weight, self.axis)).round().clamp(-self.high, self.high).to(torch.int8).contiguous()

    def calibrate(self, weight: torch.Tensor) -> None:
        """Choose every channel's scale of least squared error."""
        rows = weight.detach().movedim(self.axis, 0).flatten(1)
        self.scale.data.copy_(best_scale(rows, -self.high, self.high).squeeze(1))


@contextmanager
def passing_through(network: nn.Module) -> Iterator[None]:
    """Let everything that rounds pass its values on meanwhile: what is left is the network's new form."""
    rounding = [module for module in network.modules() if hasattr(module, "passes")]
    for module in rounding:
        module.passes = True  # type: ignore[assignment]  # no tensor, as torch takes any attribute for
    try:
        yield
    finally:
        for module in rounding:
            module.passes = False  # type: ignore[assignment]  # as above


class SameGrid(nn.Module):
    """Marks a tensor whose values lie on the grid of another, as behind max-pooling, so that it is exported with that one's scale.

    Args:
        quantizer: Name of the module that holds the scale.
    """

    def __init__(self, quantizer: str) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pass a tensor on; there is nothing to round."""
        return x


def learned_step(x: torch.Tensor, scale: torch.Tensor, low: int, high: int, gradient_scale: float) -> torch.Tensor:
    """Quantise to the integers from `low` to `high` and dequantise, with LSQ's gradients; `scale` has one element, or broadcasts."""
    return _LearnedStep.apply(x, scale, low, high, gradient_scale)  # type: ignore[no-any-return, no-untyped-call]


def along(scale: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Return scales (channels,) in a shape that broadcasts over a weight."""
    return scale.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])


def highest_weight(bits: int) -> int:
    """Return the largest integer of a symmetric grid."""
    return int(2 ** (bits - 1)) - 1


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


def best_shifted(values: torch.Tensor, levels: int) -> tuple[torch.Tensor, int]:
    """Return scale and zero-point of least mean squared error for a grid of the integers from 0 to `levels`, each end of the range shrunken in turn.

    Args:
        values: (n,) float32.
        levels: Highest integer.

    Returns:
        The scale, () float32, positive, and the integer that stands for 0.
    """
    lowest, highest = values.min().clamp_max(0), values.max().clamp_min(0)
    found, least = (1.0, 1.0), float("inf")
    shrinks = torch.linspace(0.3, 1.0, CANDIDATES).tolist()
    for tried in ([(1.0, high) for high in shrinks], [(low, None) for low in shrinks]):
        best_high = found[1]
        for low, high in tried:
            ends = (low, best_high if high is None else high)
            scale, zero_point = _grid_of(lowest * ends[0], highest * ends[1], levels)
            error = squared_error(values, scale, -zero_point, levels - zero_point)
            if error < least:
                found, least = ends, error
    return _grid_of(lowest * found[0], highest * found[1], levels)


def squared_error(values: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> float:
    """Return the mean squared error of values on a grid."""
    return float(((values / scale).round().clamp(low, high) * scale - values).square().mean())


def _grid_of(low: torch.Tensor, high: torch.Tensor, levels: int) -> tuple[torch.Tensor, int]:
    scale = ((high - low) / levels).clamp_min(1e-8)
    return scale, int((-low / scale).round().clamp(0, levels))
