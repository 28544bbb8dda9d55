"""How often an accuracy gate lets a true drop pass: what every interval that a gate is judged by must keep below 2.5 %.

`exact_error` counts all outcomes of paired hits. `simulated_error` draws samples, for statistics of another kind.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import binom

NOMINAL = 0.025
"""Of the upper end of a two-sided 95 % interval."""
SLACK = 0.002
"""Counts are whole numbers, so that even a good interval errs a little more often at some rates."""
NEGLIGIBLE = 1e-9

Upper = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Lost images, won images and the number of all images to the upper end of the interval of the drop."""


def exact_error(upper: Upper, *, images: int, drop: float, disagreement: float) -> float:
    """Return the probability that a true drop passes a gate of the same size.

    Args:
        upper: The interval, vectorised.
        images: Test images.
        drop: True drop, which is the gate too.
        disagreement: Share of images that are lost or won; at least `drop`.
    """
    changed = np.arange(images + 1)
    of_changed = binom.pmf(changed, images, disagreement)
    likely = changed[of_changed > NEGLIGIBLE]
    lost = np.concatenate([np.arange(count + 1) for count in likely])
    total = np.repeat(likely, likely + 1)
    probability = of_changed[total] * binom.pmf(lost, total, (1 + drop / disagreement) / 2)
    kept = probability > NEGLIGIBLE**2
    passes = upper(lost[kept], total[kept] - lost[kept], images) <= drop
    return float(probability[kept][passes].sum())


def simulated_error(
    upper: Callable[[np.ndarray, np.ndarray], float], draw: Callable[[int], tuple[np.ndarray, np.ndarray]], *, loss: float, rounds: int
) -> float:
    """Return the share of drawn samples whose interval excludes the true loss, which then passes a gate of its size.

    Args:
        upper: Statistics of the samples before and after to the upper end of the interval of the loss.
        draw: Seed to such statistics, of a pair of networks whose true loss is `loss`.
        loss: Of the metric.
        rounds: Samples to draw.
    """
    return sum(upper(*draw(seed)) <= loss for seed in range(rounds)) / rounds
