"""From images to what a network takes, in torch."""

import torch

from bonsai.stages.tasks.task import DataSpec


def to_inputs(images: torch.Tensor, spec: DataSpec) -> torch.Tensor:
    """Return a batch of images (n, c, h, w) uint8 as float32 inputs; a source without `Preprocess` gives inputs already."""
    if spec.preprocess is None:
        return images.float()
    mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (spec.preprocess.mean, spec.preprocess.std))
    return (images.float() / 255 - mean) / std
