"""From samples to what a network takes, in torch: what `to_input` of `pixels.py` does with NumPy, to the bit, in two steps."""

import torch

from bonsai.stages.data.pixels import black_and_white
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.tasks.task import DataSpec


def to_unit(samples: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Return uint8 samples as they are, and others as float32 scaled to [0, 1] from black to white, as augmentation takes them."""
    if samples.dtype == torch.uint8:
        return samples
    black, white = black_and_white(preprocess)
    values = samples.float()
    return (values - black if black else values) / (white - black)


def to_inputs(samples: torch.Tensor, spec: DataSpec) -> torch.Tensor:
    """Return a batch of samples, (n, c, h, w) or (n, c, t), as float32 inputs; a source without `Preprocess` gives inputs already.

    Args:
        samples: uint8, or float32 in [0, 1].
        spec: Mean and std of each channel.
    """
    if spec.preprocess is None:
        return samples.float()
    mean, std = (
        torch.tensor(figures, device=samples.device).view(-1, *(1,) * len(spec.preprocess.size)) for figures in (spec.preprocess.mean, spec.preprocess.std)
    )
    if samples.dtype != torch.uint8:
        return (samples - mean).div_(std)
    return samples.float().div_(255).sub_(mean).div_(std)  # in place: every new tensor of a batch costs as much as the arithmetic
