"""The 99th percentile of an engine's latency over several processes, by the wall clock and over all runs: no sample is dropped."""

import math
from collections.abc import Sequence

import numpy as np

from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.process_interval import interval_between
from bonsai.stages.measurement.samples import CLOCKS

PERCENTILE = 99
RUNS = 1000
"""Fewest runs of all processes together that a p99 is found from."""
LEAST_RUNS = 300
"""A process with fewer runs is not used: fewer than three of its runs would be above its p99."""


def tail_interval(processes: Sequence[np.ndarray], *, looks: int) -> Interval | None:
    """Return the interval of an engine's p99 in milliseconds; None where too few runs were made.

    Args:
        processes: Samples of the engine by process, (2, runs) nanoseconds each.
        looks: Intervals of this sequence that may be looked at, this one included.
    """
    used = [process[CLOCKS.index("wall")] / 1e6 for process in processes if process.shape[1] >= LEAST_RUNS]
    if len(used) < 2 or sum(len(runs) for runs in used) < RUNS:
        return None
    return interval_between([float(np.percentile(runs, PERCENTILE)) for runs in used], [_error(np.sort(runs)) for runs in used], looks=looks)


def _error(ordered: np.ndarray) -> float:
    """Return the relative standard error of the p99 of runs in rising order.

    The number of runs below the true percentile is binomial. One standard deviation of it to either side gives two runs; half of the logarithm of their
    ratio is the error, whatever the distribution of the runs is.
    """
    count, share = len(ordered), PERCENTILE / 100
    place, spread = count * share, math.sqrt(count * share * (1 - share))
    low, high = ordered[math.floor(place - spread)], ordered[min(math.ceil(place + spread), count - 1)]
    return math.log(high / low) / 2
