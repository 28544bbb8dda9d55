"""A task of somebody's own, as small as one can be: a regression with a unit, judged by the mean absolute error. `own_task:LENGTH` names it."""

import numpy as np

from bonsai.stages.tasks.intervals import mean_interval
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.regression.judging import ANSWER, TARGET, Regression
from bonsai.stages.tasks.task import Interval, Statistics


class Length(Regression):
    metric = Metric(name="mae", label="MAE", unit="mm", direction="lower", best=0.0)

    def reduce(self, statistics: Statistics) -> float:
        return float(errors(statistics).mean())

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        found = errors(statistics)
        value, low, high = mean_interval(found.mean(), found - found.mean(), float(found.max() - found.mean()), samples)
        return Interval(value, max(low, 0.0), high)

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        rises = errors(after) - errors(before)
        return Interval(*mean_interval(rises.mean(), rises - rises.mean(), float(max(errors(before).max(), errors(after).max())), samples))


LENGTH = Length()


def errors(statistics: Statistics) -> np.ndarray:
    return np.abs(statistics[ANSWER].astype(np.float64) - statistics[TARGET]).mean(1)
