"""Computes the interval of a latency from several processes, and decides whether enough processes have been timed.

The latency of an engine differs more between processes than within one, because memory pages and caches are laid out differently. So each process
counts as one observation. `PROCESSES` are timed first. While the interval contains the limit, as many are timed again, up to the recipe's maximum.

Each look at the growing sample can be wrong. Bonferroni's inequality divides the 5 % among the looks, so that *all* intervals of a sequence are right
with 95 % confidence, whenever it stops. A latency on the wrong side of the limit is therefore accepted in at most 2.5 % of cases. Student's t needs
processes whose logarithms are roughly normal and independent. Three close values may be luck, so the spread counts as at least `LEAST_SPREAD`; the
error within the processes is added to it.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from bonsai.stages.measurement.interval_record import Interval

CONFIDENCE = 0.95
LEAST_SPREAD = 0.01
"""Smallest relative standard deviation between processes that is assumed. On a quiet machine 1 to 3 % were measured."""
SHARED_MOVEMENT = 0.5
"""A ratio to the dense engine cancels most of the differences between processes. This fraction of the dense engine's own variation is assumed to remain."""


def looks_of(first: int, most: int) -> tuple[int, ...]:
    """Return after how many processes the interval is looked at: every `first`, and at the end."""
    return (*range(first, most, first), most)


def interval_between(figures: Sequence[float], errors: Sequence[float], *, looks: int = 1, movement: float = 0.0) -> Interval:
    """Return the interval of a positive figure that each process measured once.

    Args:
        figures: One per process, at least two.
        errors: Relative standard error of each, within its process.
        looks: Intervals of this sequence that may be looked at, this one included.
        movement: Relative standard deviation between processes of what should not have moved at all, such as the dense engine under a ratio.
    """
    logs = np.log(np.asarray(figures, dtype=float))
    count = len(logs)
    least = math.sqrt(LEAST_SPREAD**2 + float(np.mean(np.square(errors))))
    spread = max(float(logs.std(ddof=1)), least, SHARED_MOVEMENT * movement)
    half = half_width(count, spread, looks=looks)
    middle = float(logs.mean())
    return Interval(found=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half), processes=count, spread=spread)


def half_width(processes: int, spread: float, *, looks: int = 1) -> float:
    """Return the half width of the interval of a figure's logarithm.

    Args:
        processes: Number of processes, at least two.
        spread: Relative standard deviation between them; no less than `LEAST_SPREAD` is believed.
        looks: As for `interval_between`.
    """
    quantile = float(stdtrit(processes - 1, 1 - (1 - CONFIDENCE) / looks / 2))
    return quantile * max(spread, LEAST_SPREAD) / math.sqrt(processes)


def movement_of(milliseconds: Sequence[float]) -> float:
    """Return the relative standard deviation between processes of one engine's latency."""
    return float(np.log(np.asarray(milliseconds, dtype=float)).std(ddof=1))
