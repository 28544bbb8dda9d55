"""Random changes of training images, by torchvision's `transforms.v2`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from bonsai.stages.training.config import AugmentConfig

Augmentation = Callable[[torch.Tensor], torch.Tensor]


def make_augmentation(config: AugmentConfig) -> Augmentation | None:
    """Return what rotates, shifts and zooms one image (c, h, w) at random; None where nothing is asked for.

    What comes in from outside is 0: black, before a `Preprocess`.
    """
    if not (config.rotate or config.shift or config.zoom):
        return None
    from torchvision.transforms import v2  # here, for its import takes a second that only a training should wait for

    augmentation: Augmentation = v2.RandomAffine(
        degrees=config.rotate,
        translate=(config.shift, config.shift),
        scale=(1 - config.zoom, 1 + config.zoom),
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=None,  # zero without a mask, which would cost as much again
    )
    return augmentation


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the CPU's random numbers from a seed meanwhile: the transforms take no generator. Afterwards all others go on as if none had been drawn."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which seeds the GPUs as well
        yield
