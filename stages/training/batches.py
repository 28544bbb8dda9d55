"""Batches as a pure function of the step: any part of a training can be repeated or continued exactly."""

import torch
from safetensors.torch import load_file
from torch.nn import functional

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.inputs import to_inputs
from bonsai.stages.training.config import AugmentConfig, TrainConfig


def load_split(dataset: Dataset, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (images, labels) of ``train``, ``validation`` or ``test``: (n, c, h, w) float32 as the network takes them, (n,) int64."""
    tensors = load_file(dataset.folder / f"{split}.safetensors")
    return to_inputs(tensors["images"], dataset.spec), tensors["labels"]


class Batches:
    """The training split, shuffled anew every epoch and augmented.

    Args:
        dataset: Where the images lie.
        config: Batch size, seed and augmentation.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        self._images, self._labels = (tensor.to(config.device) for tensor in load_split(dataset, "train"))
        self._config = config
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))
        self.per_epoch = max(len(self._labels) // config.batch_size, 1)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the (images, labels) of one optimizer step; the last partial batch of an epoch is dropped."""
        epoch, index = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            order = torch.randperm(len(self._labels), generator=_generator(self._config.seed, epoch, 0))
            self._order = epoch, order.to(self._labels.device)
        chosen = self._order[1][index * self._config.batch_size : (index + 1) * self._config.batch_size]
        images = augment(self._images[chosen], self._config.augment, _generator(self._config.seed, step, 1))
        return images.contiguous(memory_format=torch.channels_last), self._labels[chosen]


def augment(images: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """Rotate, zoom and shift each image at random.

    Args:
        images: (n, c, h, w) float32; what comes in from outside is -1.
        config: Largest changes.
        generator: Source of the randomness.
    """
    if not (config.rotate or config.shift or config.zoom):
        return images
    draws = torch.rand(4, len(images), generator=generator).to(images.device) * 2 - 1
    angle = draws[0] * config.rotate * torch.pi / 180
    scale = 1 + draws[1] * config.zoom
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift_x, shift_y = draws[2] * 2 * config.shift, draws[3] * 2 * config.shift
    matrices = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images + 1, grid, align_corners=False) - 1


def _generator(seed: int, counter: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 2 + stream) * 1_000_003 + counter)
