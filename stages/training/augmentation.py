"""Random changes of training images, by torchvision's `transforms.v2`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bonsai.stages.tasks.segmentation.judging import IGNORED
from bonsai.stages.training.config import AugmentConfig

Augmentation = Callable[..., Any]
"""A transform of `torchvision.transforms.v2`."""


def make_augmentation(config: AugmentConfig) -> Augmentation | None:
    """Return what rotates, shifts and zooms one image (c, h, w) at random, and its mask alike; None where nothing is asked for.

    What comes in from outside is 0: black, before a `Preprocess`; in a mask it does not count.
    """
    if not (config.rotate or config.shift or config.zoom):
        return None
    from torchvision import tv_tensors
    from torchvision.transforms import v2  # here, for its import takes a second that only a training should wait for

    augmentation: Augmentation = v2.RandomAffine(
        degrees=config.rotate,
        translate=(config.shift, config.shift),
        scale=(1 - config.zoom, 1 + config.zoom),
        interpolation=v2.InterpolationMode.BILINEAR,
        fill={tv_tensors.Mask: IGNORED, "others": None},  # None is zero without drawing which pixels are outside, which would cost as much again
    )
    return augmentation


def move_image(augmentation: Augmentation, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
    """Return an image (c, h, w) changed at random, and its target as it is."""
    return augmentation(image), target


def move_both(augmentation: Augmentation, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image (c, h, w) and its mask (h, w) changed at random and alike."""
    from torchvision import tv_tensors

    found, moved = augmentation(tv_tensors.Image(image), tv_tensors.Mask(mask))
    return found.as_subclass(torch.Tensor), moved.as_subclass(torch.Tensor)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the CPU's random numbers from a seed meanwhile: the transforms take no generator. Afterwards all others go on as if none had been drawn."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which seeds the GPUs as well
        yield
