"""Decides when a timing may end early: as soon as the ratio of two engines is certainly above the limit that matters.

This is a group-sequential test (Pocock, Biometrika 64, 1977) on the turns in which two engines were timed. It looks at the turns a few times. At each
look, the logarithms of the turns' ratios are averaged in `BATCHES` consecutive batches, because neighbouring turns may depend on each other. Student's
interval of these averages is then compared with the limit. By Bonferroni's inequality, the error of all looks of a round together is at most `ERROR`.
A timing that other programs disturbed has several rounds (`TimingConfig.tries`).
"""

import math
from collections.abc import Sequence

import numpy as np

BATCHES = 8
LOOKS = (16, 24, 40, 56)
"""Numbers of turns after which the test is made."""
ERROR = 0.01
"""Probability that a ratio on the limit, or below, is judged to be above at any look of a round."""
T_QUANTILE = 4.029
"""Student's quantile with BATCHES - 1 = 7 degrees of freedom at 1 - ERROR / 4, for the four looks."""


def is_above(candidate: Sequence[np.ndarray], reference: Sequence[np.ndarray], limit: float) -> bool:
    """Whether the ratio of two engines' medians is above a limit, beyond a doubt.

    Args:
        candidate: Runs of the candidate by turn, each (runs,) nanoseconds.
        reference: Runs of the reference in the same turns.
        limit: Largest ratio for which the exact figure matters.
    """
    ratios = np.log([np.median(runs) / np.median(others) for runs, others in zip(candidate, reference, strict=True)])
    batches = np.array([batch.mean() for batch in np.array_split(ratios, BATCHES)])
    margin = T_QUANTILE * batches.std(ddof=1) / math.sqrt(BATCHES)
    return bool(batches.mean() - margin > math.log(limit))
