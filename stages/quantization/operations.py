"""Activations and poolings that are exported in another form than they are trained in."""

import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.quantization.quantizers import learned_step
from bonsai.stages.quantization.records import GATE_LEVELS


class GatedActivation(nn.Module):
    """SiLU, x * sigmoid(x), or hardswish, x * hardsigmoid(x).

    ONNX Runtime has no INT8 kernel for either, but it has kernels for the gate and the product. They are faster (measured on 75,000
    values: 33 us instead of 45 for SiLU, 19 instead of 29 for hardswish), so the gate is quantised too, on a fixed grid. TensorRT fuses
    the whole activation with the convolution before it.

    Args:
        kind: ``silu`` or ``hardswish``.
        dialect: The runtime family that is simulated.
    """

    def __init__(self, kind: str, dialect: Dialect) -> None:
        super().__init__()
        self.kind = kind
        self.dialect = dialect
        self.passes = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map a tensor to one of the same shape."""
        if self.dialect == "trt" or self.passes:
            return functional.silu(x) if self.kind == "silu" else functional.hardswish(x)
        gate = torch.sigmoid(x) if self.kind == "silu" else functional.hardsigmoid(x)
        return x * learned_step(gate, x.new_tensor(1 / GATE_LEVELS), 0, GATE_LEVELS, 0.0)


class GlobalAverage(nn.Module):
    """Average over height and width, or over time, however the network writes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to (n, c, 1, 1), and (n, c, t) to (n, c, 1)."""
        return x.mean(tuple(range(2, x.ndim)), keepdim=True)


class AveragePool(nn.Module):
    """Average over windows: a depthwise convolution with equal weights, where the padding counts.

    Args:
        pool: The pooling.
        channels: Channels of its input.
        weight_bits: Width of those weights.
    """

    def __init__(self, pool: nn.AvgPool2d, channels: int, weight_bits: int) -> None:
        super().__init__()
        self.pool = pool
        self.channels = channels
        self.weight_bits = weight_bits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to (n, c, h', w')."""
        pooled: torch.Tensor = self.pool(x)
        return pooled

    def as_convolution(self) -> nn.Conv2d | None:
        """Return the convolution that computes the same, or None where none does."""
        pool = self.pool
        kernel, stride, padding = (_pair(value) for value in (pool.kernel_size, pool.stride, pool.padding))
        if pool.ceil_mode or (any(padding) and not pool.count_include_pad):
            return None
        conv = nn.Conv2d(self.channels, self.channels, kernel, stride, padding, groups=self.channels, bias=False)
        conv.weight.data.fill_(1 / (pool.divisor_override or kernel[0] * kernel[1]))
        return conv


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
