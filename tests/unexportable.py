"""Networks that train but have no file: one that ONNX has no operator for, and one that forgets FP16."""

import torch
from hard_networks import Plain


class Median(Plain):
    """Subtracts the median, which ONNX cannot compute."""

    def middle(self, x):
        return x - x.flatten(2).median(-1).values[:, :, None, None]


class Ramp(Plain):
    """Adds numbers that are made in FP32 wherever it is computed."""

    def middle(self, x):
        return x + torch.linspace(0, 1, x.shape[-1])
