"""Ends a timing of two engines as soon as their ratio is certain to be above the limit that matters."""

from collections.abc import Mapping

import numpy as np

from bonsai.stages.measurement.calm import turns_of
from bonsai.stages.measurement.sequential import LOOKS, is_above


class EarlyEnd:
    """Asked after every turn whether the timing may end.

    Args:
        limit: Largest ratio of the candidate's median to the reference's for which the exact figure matters.
        clock: The clock that medians are judged by.
        candidate: Its name among the samples.
        reference: The reference's name.

    Attributes:
        turns: Turns after which it ended the timing; 0 while it did not.
    """

    def __init__(self, limit: float, clock: str, *, candidate: str, reference: str) -> None:
        self.turns = 0
        self._limit, self._clock, self._candidate, self._reference = limit, clock, candidate, reference

    def __call__(self, turns: int, samples: Mapping[str, np.ndarray]) -> bool:
        """Whether so many turns are enough."""
        if turns in LOOKS:
            by_turn = turns_of(samples, self._clock, turns)
            if is_above(by_turn[self._candidate], by_turn[self._reference], self._limit):
                self.turns = turns
        return bool(self.turns)
