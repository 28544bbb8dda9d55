"""Whether the exported graph computes what the torch network computes, on real images."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from stages.errors import BuildError
from stages.graph.config import ExportConfig
from stages.models.calling import logits_of


@torch.no_grad()
def compare(network: nn.Module, run: Callable[[np.ndarray], np.ndarray], images: torch.Tensor) -> dict[str, float]:
    """Return how the logits of `run` follow those of `network`.

    Args:
        network: Float or fake-quantised network.
        run: The exported graph.
        images: (n, c, h, w) float32.

    Returns:
        ``agreement`` of top-1 (0-1), ``mean_difference`` and ``max_difference`` of logits, and
        ``logit_spread``, their standard deviation.
    """
    expected = logits_of(network.eval(), images).numpy()
    found = run(images.contiguous().numpy())
    difference = np.abs(found - expected)
    return {
        "agreement": float((found.argmax(1) == expected.argmax(1)).mean()),
        "mean_difference": float(difference.mean()),
        "max_difference": float(difference.max()),
        "logit_spread": float(expected.std()),
    }


def require_parity(parity: dict[str, float], config: ExportConfig) -> None:
    """Check a comparison against the recipe's limits.

    The largest difference is not judged: one image on a rounding edge moves it.

    Raises:
        BuildError: Agreement is too low or the mean difference too high.
    """
    relative = parity["mean_difference"] / max(parity["logit_spread"], 1e-12)
    if not (parity["agreement"] >= config.min_agreement and relative <= config.max_mean_difference):  # so that NaN is refused too
        raise BuildError(
            f"the exported graph does not follow the torch network: top-1 agrees on {parity['agreement']:.1%} of the images "
            f"(at least {config.min_agreement:.1%}), logits differ by {relative:.1%} of their spread (at most {config.max_mean_difference:.1%})"
        )
