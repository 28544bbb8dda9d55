"""Intervals of accuracies and of their differences, from per-image hits."""

import numpy as np
from scipy.stats import binomtest

Z = 1.959964
"""Of a two-sided 95 % interval."""


def wilson(hits: np.ndarray) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share of hits, (n,) bool."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def paired_drop(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Return by how much the share of hits fell on the same images, and its 95 % interval.

    Wald's interval with half an image added to each cell of the table (Agresti and Min, "Simple improved confidence intervals for
    comparing matched proportions", 2005).

    Args:
        before: (n,) bool.
        after: (n,) bool, of the same images.
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    b, c, n = lost + 0.5, won + 0.5, len(before) + 2
    half = Z * float(np.sqrt(b + c - (b - c) ** 2 / n)) / n
    return (lost - won) / len(before), (b - c) / n - half, (b - c) / n + half


def least_provable_drop(images: int, disagreement: float = 0.0) -> float:
    """Return the upper end of `paired_drop`'s interval where no accuracy is lost: no smaller drop can be shown with so few images.

    Args:
        images: Number of test images.
        disagreement: Share of the images, 0-1, on which the two networks differ, half of them each way.
    """
    return Z * float(np.sqrt(1 + disagreement * images)) / (images + 2)


def images_to_prove(drop: float) -> int:
    """Return how many test images, all alike before and after, show that accuracy fell by no more than `drop`."""
    return max(int(np.ceil(Z / drop - 2)), 1)
