"""Ends a timing of two engines as soon as their ratio is certain to lie outside the bounds that matter."""

from collections.abc import Mapping

import numpy as np

from bonsai.stages.measurement.calm import turns_of
from bonsai.stages.measurement.sequential import LOOKS, is_outside


class EarlyEnd:
    """Asked after every turn whether the timing may end.

    Args:
        bounds: Least and largest ratio of the candidate's median to the reference's for which the exact figure matters.
        clock: The clock that medians are judged by.
        candidate: Its name among the samples.
        reference: The reference's name.

    Attributes:
        turns: Turns after which it ended the timing; 0 while it did not.
    """

    def __init__(self, bounds: tuple[float, float], clock: str, *, candidate: str, reference: str) -> None:
        self.turns = 0
        self._bounds, self._clock, self._candidate, self._reference = bounds, clock, candidate, reference

    def __call__(self, turns: int, samples: Mapping[str, np.ndarray]) -> bool:
        """Whether so many turns are enough."""
        if turns in LOOKS:
            by_turn = turns_of(samples, self._clock, turns)
            if is_outside(by_turn[self._candidate], by_turn[self._reference], self._bounds):
                self.turns = turns
        return bool(self.turns)
