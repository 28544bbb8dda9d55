"""Whether a network without some channels computes what it computes while they are masked."""

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.networks.seeding import seeded

TOLERANCE = 1e-3
"""Largest difference between masking and removing channels, relative to how much outputs vary between images (fp32)."""
VARIES = 0.02
"""Outputs that vary by less than this fraction of the largest are too flat to show the effect of a cut."""


class Uncuttable(ConfigError):
    """A cut is not possible, or is not what it should be."""


@torch.no_grad()
def outputs(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what a network makes of a copy of the images, in evaluation."""
    with evaluating(network), seeded(0):
        found: torch.Tensor = network(images.clone())
    return found


def variation(found: torch.Tensor) -> float:
    """Return how much outputs (n, ...) vary between images: the largest difference from their mean."""
    return float((found - found.mean(0)).abs().max())


def varies(found: torch.Tensor) -> bool:
    """Whether outputs depend on the image enough to show what a cut changes."""
    return variation(found) > VARIES * float(found.abs().max())


def require_equal(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the largest difference, divided by how much the expected outputs vary, or by the least variation that would show a cut if they vary less.

    Raises:
        Uncuttable: It exceeds `TOLERANCE`.
    """
    if expected.shape != found.shape:
        raise Uncuttable(f"the network does not run without some of its channels: outputs {tuple(found.shape)} instead of {tuple(expected.shape)}")
    scale = max(variation(expected), VARIES * float(expected.abs().max()), 1e-12)
    error = float((expected - found).abs().max()) / scale
    if not error <= TOLERANCE:  # NaN is refused too
        raise Uncuttable(
            f"removing channels is not the same as zeroing them: the network reshapes, groups or mixes channels "
            f"(relative difference {error:.1e}, allowed {TOLERANCE:.0e})"
        )
    return error
