"""Whether the exported graph computes what the torch network computes, on real images."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.tasks.task import Task

BATCH = 64
"""Number of images that are run at a time."""
MOST_NUMBERS = 2**26
"""Largest number of outputs that are held: of large masks fewer images are compared."""


@torch.no_grad()
def compare(network: nn.Module, run: Callable[[np.ndarray], np.ndarray], images: torch.Tensor, task: Task) -> dict[str, float]:
    """Return how the outputs of `run` follow those of `network`.

    Args:
        network: Float or fake-quantised network.
        run: The exported graph.
        images: (n, c, h, w) float32.
        task: Says how far outputs are apart.

    Returns:
        ``images``, their number, ``agreement`` of the predictions (0-1), ``mean_difference`` and ``max_difference`` of outputs, and
        ``spread``, their standard deviation.
    """
    network.eval()
    each = outputs_of(network, images[:1]).numel()
    images = images[: max(MOST_NUMBERS // each, BATCH)]
    parts = [images[first : first + BATCH].contiguous() for first in range(0, len(images), BATCH)]
    expected = np.concatenate([outputs_of(network, part).numpy() for part in parts])
    found = task.difference(np.concatenate([run(part.numpy()) for part in parts]), expected)
    return {
        "images": float(len(images)),
        "agreement": found.agreement,
        "mean_difference": found.mean,
        "max_difference": found.largest,
        "spread": found.spread,
    }


def require_parity(parity: dict[str, float], config: ExportConfig) -> None:
    """Check a comparison against the recipe's limits.

    Images are counted whole: where `min_agreement` is below 1, one may always differ, since a single image of few between two predictions is no
    fault of the export. The largest difference is not judged: one image on a rounding edge moves it.

    Raises:
        BuildError: Agreement is too low or the mean difference too high.
    """
    relative = parity["mean_difference"] / max(parity["spread"], 1e-12)
    images = round(parity["images"])
    differing, allowed = round((1 - parity["agreement"]) * images), allowed_to_differ(images, config.min_agreement)
    if not (differing <= allowed and relative <= config.max_mean_difference):  # so that NaN is refused too
        raise BuildError(
            f"the exported graph does not follow the torch network: the prediction differs on {differing} of {images} images "
            f"(export.min_agreement {config.min_agreement:g}: at most {allowed} may differ), outputs by {relative:.1%} of their spread "
            f"(export.max_mean_difference: at most {config.max_mean_difference:.1%})"
        )


def allowed_to_differ(images: int, min_agreement: float) -> int:
    """Return on how many of so many images the prediction may differ: the share that need not agree, but one at least, unless all must agree."""
    share = math.floor((1 - min_agreement) * images + 1e-9)  # 1 - 0.98 is a little less than 0.02
    return share if min_agreement == 1 else max(share, 1)
