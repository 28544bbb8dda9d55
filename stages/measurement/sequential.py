"""When a timing may end early: as soon as it is certain that a ratio of two engines lies outside the bounds that matter.

A group-sequential test (Pocock, Biometrika 64, 1977) on the turns in which two engines were timed: at each of a few looks, the logarithms of the
turns' ratios are averaged in `BATCHES` consecutive batches, so that neighbouring turns may depend on each other, and Student's interval of the
batches is compared with the bounds. Bonferroni's inequality holds the error of all looks of a round together at `ERROR` for each bound; a timing
that neighbours disturbed has several rounds (`TimingConfig.tries`).
"""

import math
from collections.abc import Sequence

import numpy as np

BATCHES = 8
LOOKS = (16, 24, 40, 56)
"""Numbers of turns after which the test is made."""
ERROR = 0.01
"""Probability that a ratio on a bound, or inside, is judged to be outside at any look of a round."""
T_QUANTILE = 4.029
"""Student's quantile with BATCHES - 1 = 7 degrees of freedom at 1 - ERROR / 4, for the four looks."""


def is_outside(candidate: Sequence[np.ndarray], reference: Sequence[np.ndarray], bounds: tuple[float, float]) -> bool:
    """Whether the ratio of two engines' medians lies outside the bounds, beyond a doubt.

    Args:
        candidate: Runs of the candidate by turn, each (runs,) nanoseconds.
        reference: Runs of the reference in the same turns.
        bounds: Least and largest ratio for which the exact figure matters.
    """
    ratios = np.log([np.median(runs) / np.median(others) for runs, others in zip(candidate, reference, strict=True)])
    batches = np.array([batch.mean() for batch in np.array_split(ratios, BATCHES)])
    margin = T_QUANTILE * batches.std(ddof=1) / math.sqrt(BATCHES)
    low, high = batches.mean() - margin, batches.mean() + margin
    return bool(high < math.log(bounds[0]) or low > math.log(bounds[1]))
