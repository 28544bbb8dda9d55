"""Scores of a network, as a caller's own function computes them, with intervals where it returns one value for each sample.

    before, after = Scores.of(dense_values), Scores.of(engine_values)
    gate = drop_gate(before, after, limit=0.02, higher_is_better=True, label="accuracy")

Intervals are those of the tasks: of shares of hits where all values are 0 or 1, else of means.
"""

from typing import NamedTuple

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.measurement.budget_gates import verdict_of, verdict_within
from bonsai.stages.measurement.measurements import Gate
from bonsai.stages.measurement.verdicts import DROP, METRIC
from bonsai.stages.tasks.intervals import mean_interval, paired_drop, wilson_of_share
from bonsai.stages.tasks.task import Interval

BEYOND = 1.25
"""How much farther an unseen value may lie from 0 than the farthest seen, where values are no ratios 0-1; as for regressions."""
NO_INTERVAL = "evaluate returned one number, so there is no interval: chance alone may have moved it"
LEAST = 2
"""Fewest values that an interval can be computed of."""


class Scores(NamedTuple):
    """What an evaluation returned.

    Attributes:
        mean: The number, or the mean of the values.
        values: One for each sample, (n,) float64; None where it returned one number.
    """

    mean: float
    values: np.ndarray | None

    @classmethod
    def of(cls, found: object) -> "Scores":
        """Return a number, or the values of the samples, as scores.

        Raises:
            ConfigError: It is neither, or not finite.
        """
        try:
            numbers = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            raise _refused(type(found).__name__) from None
        if found is None or isinstance(found, str | bytes) or numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) < LEAST):
            raise _refused(f"an array of shape {numbers.shape}" if numbers.ndim else type(found).__name__)
        if not np.isfinite(numbers).all():
            raise _refused(f"{np.count_nonzero(~np.isfinite(numbers))} of {numbers.size} values are NaN or infinite")
        return cls(float(numbers.mean()), numbers if numbers.ndim else None)

    @property
    def are_hits(self) -> bool:
        """Whether every sample is right or wrong: its value is 1 or 0."""
        return self.values is not None and bool(np.isin(self.values, (0.0, 1.0)).all())

    def interval(self) -> Interval | None:
        """Return the mean with its 95 % interval; None for one number."""
        if self.values is None:
            return None
        if self.are_hits:
            return Interval(self.mean, *wilson_of_share(self.mean, len(self.values)))
        return Interval(*mean_interval(self.mean, self.values - self.mean, _reach(self.values)))


def require_alike(first: Scores, later: Scores) -> None:
    """Check that two evaluations returned the same kind of scores.

    Raises:
        ConfigError: One returned a number and the other values, or another number of values.
    """
    given = [len(each.values) if each.values is not None else None for each in (first, later)]
    if given[0] != given[1]:
        said = " and then ".join("one number" if count is None else f"{count} values" for count in given)
        fix = "run the same samples in the same order, and return the same kind of score, each time that it is called"
        raise ConfigError(describe("evaluate returned scores of two kinds", given=said, allowed="the same number of values each time", fix=fix))


def drop_of(before: Scores, after: Scores, *, higher_is_better: bool) -> tuple[float, Interval | None]:
    """Return by how much the score got worse on the same samples, and its paired 95 % interval where there is one."""
    sign = 1 if higher_is_better else -1
    drop = sign * (before.mean - after.mean)
    if before.values is None or after.values is None:
        return drop, None
    if before.are_hits and after.are_hits:
        good = 1.0 if higher_is_better else 0.0
        return drop, Interval(*paired_drop(np.equal(before.values, good), np.equal(after.values, good)))
    falls = sign * (before.values - after.values)
    return drop, Interval(*mean_interval(drop, falls - drop, _reach(np.concatenate([before.values, after.values]))))


def drop_gate(before: Scores, after: Scores, *, limit: float, higher_is_better: bool, label: str) -> Gate:
    """Return the gate on the drop: met if its whole interval is within the limit, missed if none of it is, else undecided."""
    drop, interval = drop_of(before, after, higher_is_better=higher_is_better)
    if interval is None:
        return Gate(name=DROP, limit=limit, found=drop, unit=label, verdict=verdict_of(drop <= limit), note=NO_INTERVAL)
    assert after.values is not None
    note = f"paired 95 % interval; {len(after.values)} samples"
    verdict = verdict_within(interval.low, interval.high, limit)
    return Gate(name=DROP, limit=limit, found=drop, unit=label, verdict=verdict, note=note, low=interval.low, high=interval.high)


def score_gate(scores: Scores, *, limit: float, higher_is_better: bool, label: str) -> Gate:
    """Return the gate on the score itself, which must be at least the limit, or at most where lower is better."""
    interval, sign = scores.interval(), 1 if higher_is_better else -1
    if interval is None:
        return Gate(name=METRIC, limit=limit, found=scores.mean, unit=label, verdict=verdict_of(sign * scores.mean >= sign * limit), note=NO_INTERVAL)
    assert scores.values is not None
    ends = sorted((-sign * interval.low, -sign * interval.high))
    note = f"95 % interval; {len(scores.values)} samples"
    verdict = verdict_within(ends[0], ends[1], -sign * limit)
    return Gate(name=METRIC, limit=limit, found=scores.mean, unit=label, verdict=verdict, note=note, low=interval.low, high=interval.high)


def _reach(values: np.ndarray) -> float:
    """Return how far an unseen value may lie from the mean: of ratios 0-1 by 1, of others by a little more than the range that holds all values and 0."""
    lowest, highest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return 1.0 if lowest >= 0 and highest <= 1 else BEYOND * (highest - lowest)


def _refused(given: str) -> ConfigError:
    return ConfigError(
        describe(
            "evaluate returned no score",
            given=given,
            allowed="a finite number, or an array (n,) of finite values, one for each of two samples or more",
            fix="return the metric of the whole set, or its value for each sample",
        )
    )
