"""Finds the turns of a timing in which the machine was calm, by the dense engine that was timed in the same turns.

On a shared machine, other programs slow an engine down for parts of a second to minutes. They do not slow small and large engines equally, so the
ratio of two medians varies: over all runs it was 0.28 to 0.43 in 14 processes on one machine under load (a standard deviation of 13 %). Over the calm
turns alone it was 0.30 to 0.31 (1.2 %). On a quiet machine all turns are calm. Only the dense engine decides whether a turn is calm, so slow runs of
the judged engine are not removed.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bonsai.stages.measurement.samples import CLOCKS

CALM = 0.08
"""A turn is calm if the dense engine's median is at most this fraction slower than its pace."""
PACE = 10
"""The pace is this percentile of the dense engine's medians by turn, over all processes."""
LEAST_TURNS = 5
"""A process with fewer calm turns is not used; if it had few turns, one with less than a quarter calm."""

Samples = Mapping[str, np.ndarray]
"""Samples of one process: by engine, (2, runs) nanoseconds."""


def turns_of(samples: Samples, clock: str, turns: int) -> dict[str, list[np.ndarray]]:
    """Return the runs of each engine, in nanoseconds on a clock, by the turn that they were made in.

    Args:
        samples: Samples of one process.
        clock: One of `CLOCKS`.
        turns: How many turns there were; fewer are returned where an engine was run less often.
    """
    count = min(turns, *(values.shape[1] for values in samples.values()))
    row = CLOCKS.index(clock)
    return {name: [values[row, turn] for turn in _slices(values.shape[1], count, range(count))] for name, values in samples.items()}


def pace_of(references: Sequence[Sequence[np.ndarray]]) -> float:
    """Return the pace of the dense engine over all processes, in nanoseconds."""
    return float(np.percentile([np.median(turn) for turns in references for turn in turns], PACE))


def calm_turns(reference: Sequence[np.ndarray], pace: float) -> list[int]:
    """Return the numbers of the turns in which the dense engine ran at its pace; none if there are too few of them."""
    found = [number for number, turn in enumerate(reference) if np.median(turn) <= pace * (1 + CALM)]
    return found if len(found) >= min(LEAST_TURNS, max(len(reference) // 4, 1)) else []


def calm_part(samples: Samples, clock: str, turns: int, reference: str) -> dict[str, np.ndarray]:
    """Return the samples of one process without the turns in which the machine was not calm; all of them where it hardly ever was.

    Args:
        samples: Of few engines: while many take their turns, the machine does not stay as it was.
        clock: Clock by which calm turns are found.
        turns: How many turns there were.
        reference: Name of the dense engine.
    """
    count = min(turns, *(values.shape[1] for values in samples.values()))
    found = turns_of(samples, clock, turns)[reference]
    chosen = calm_turns(found, pace_of([found])) or range(count)
    return {name: np.concatenate([values[:, turn] for turn in _slices(values.shape[1], count, chosen)], axis=1) for name, values in samples.items()}


def _slices(runs: int, count: int, chosen: Iterable[int]) -> list[slice]:
    return [slice(turn * runs // count, (turn + 1) * runs // count) for turn in chosen]
