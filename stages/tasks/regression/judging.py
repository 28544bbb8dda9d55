"""How a regression is judged: by RMSE, the root of the mean squared error, in the unit of the targets."""

from collections.abc import Mapping, Sequence

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.intervals import mean_interval
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.results_table import Picture, ResultsTable
from bonsai.stages.tasks.stored import Kinds, pack, unpack
from bonsai.stages.tasks.task import Arrays, Baseline, DataSpec, Difference, Interval, Provable, Statistics, TensorSpec

TARGET, ANSWER = "target", "answer"
"""Statistics: the figures of each sample and the predicted ones, (n, figures) float32 each."""
KINDS: Kinds = {TARGET: ("float32", 2), ANSWER: ("float32", 2)}
ALIKE = 0.1
"""Two predictions are the same if they differ by at most this share of the spread of the expected ones."""
BEYOND = 1.25
"""How much larger an unseen squared error may be than the largest seen. Found by `tests/simulated_results.py`."""
LEAST = 1e-12


class Regression:
    """One or several figures a sample; `found` and `targets` are (n, figures) float32."""

    metric = Metric(name="rmse", label="RMSE", direction="lower", best=0.0)
    learning = "bonsai.stages.tasks.regression.learning:RegressionLearning"
    moves_with_image = False

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the figures."""
        return (TensorSpec("values", (spec.num_classes,), labelled=True),)

    def check_targets(self, targets: np.ndarray, spec: DataSpec, classes: tuple[str, ...]) -> np.ndarray:
        """Return figures as float32.

        Raises:
            ConfigError: They are not one number for each figure, or are not finite.
        """
        allowed = f"(n, {len(classes)}) of finite numbers: {', '.join(classes[:6])}"
        given = f"{targets.dtype} {list(targets.shape)}"
        if targets.ndim != 2 or targets.shape[1] != len(classes):
            fix = "return one column for each name of `classes`, which are the names of the figures; one figure: targets[:, None]"
            raise ConfigError(describe("targets are not one column for each figure", given=given, allowed=allowed, fix=fix))
        if targets.dtype.kind not in "iuf":
            raise ConfigError(describe("targets are no numbers", given=given, allowed=allowed, fix="convert them: targets.float()"))
        if not np.isfinite(targets.astype(np.float32)).all():
            fix = "leave out the samples whose figures are not known, or choose another unit"
            raise ConfigError(describe("targets are NaN, infinite, or too large for float32", given=given, allowed=allowed, fix=fix))
        return targets.astype(np.float32)

    def strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Return None: samples are split at random."""
        return None

    def class_weights(self, targets: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Return for each figure 1 over its variance, so that figures of different units count alike."""
        return tuple(float(1 / max(variance, LEAST)) for variance in targets.var(0, dtype=np.float64))

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        """Return the figures of each sample, and the predicted ones."""
        return {TARGET: np.asarray(targets, dtype=np.float32), ANSWER: np.asarray(found, dtype=np.float32)}

    def reduce(self, statistics: Statistics) -> float:
        """Return RMSE over all samples and figures."""
        return float(np.sqrt(_squares(statistics).mean()))

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        """Return RMSE with the root of the score interval of the mean squared error, in which an unseen error may be a little larger than the largest seen."""
        squares = _squares(statistics)
        mean = float(squares.mean())
        _, low, high = mean_interval(mean, squares - mean, BEYOND * float(squares.max()) - mean, samples)
        return Interval(float(np.sqrt(mean)), float(np.sqrt(max(low, 0.0))), float(np.sqrt(high)))

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        """Return by how much RMSE rose on the same samples, with its score interval, in which unseen errors may exceed the largest seen a little."""
        squares = [_squares(statistics) for statistics in (before, after)]
        earlier, later = (float(np.sqrt(square.mean())) for square in squares)
        rises = squares[1] / (2 * max(later, LEAST)) - squares[0] / (2 * max(earlier, LEAST))
        largest = BEYOND * max(float(square.max()) for square in squares)
        drop, low, high = mean_interval(later - earlier, rises - rises.mean(), largest / (2 * max(earlier, LEAST)), samples)
        return Interval(drop, low, high)

    def baseline(self, targets: Arrays) -> Baseline:
        """Return the RMSE of the mean of each figure."""
        return Baseline(float(np.sqrt(targets.var(0, dtype=np.float64).mean())), "always naming the mean")

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        """Return how far figures lie from expected ones, and the share of them that is the same but for a tenth of the spread; NaN where one is no number."""
        with np.errstate(invalid="ignore", over="ignore"):  # it is the caller who refuses NaN
            same = np.abs(found - expected) <= ALIKE * expected.std(0)
            return Difference.between(found, expected, agreement=float(same.mean()))

    def provable(self, targets: Arrays, samples: int, differing: float = 0.0) -> Provable | None:
        """Return None: what errors can show depends on how large they are."""
        return None

    def samples_to_prove(self, drop: float, targets: Arrays) -> int | None:
        """Return None, as `provable` does."""
        return None

    def tables(self, statistics: Statistics, classes: Sequence[str]) -> tuple[ResultsTable, ...]:
        """Return the errors of each figure: RMSE, MAE, R² (the share of the variance that is explained), and the largest error."""
        target, errors = (statistics[TARGET].astype(np.float64), _errors(statistics))
        rmse, mae, largest, mean = np.sqrt(np.square(errors).mean(0)), np.abs(errors).mean(0), np.abs(errors).max(0), errors.mean(0)
        explained = determination(target, errors)
        rows = tuple((name, *(f"{figure:.4g}" for figure in figures)) for name, *figures in zip(classes, rmse, mae, explained, mean, largest, strict=True))
        return (ResultsTable(caption="Errors by figure", headers=("figure", "RMSE", "MAE", "R²", "mean error", "largest error"), rows=rows),)

    def pictures(self, images: np.ndarray, found: Arrays, targets: Arrays) -> tuple[Picture, ...]:
        """Return none."""
        return ()

    def to_tensors(self, dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
        """Return the figures, and what both engines predicted."""
        return pack(dense, shipped)

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics | None, Statistics]:
        """Return what `to_tensors` was given.

        Raises:
            ValueError: The tensors are others.
        """
        return unpack(tensors, KINDS)


REGRESSION = Regression()


def determination(target: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return R² of each figure: 1 less the squared errors over the squared distances from the mean; NaN for a figure that is always the same."""
    spread = np.square(target - target.mean(0)).sum(0)
    return np.where(spread > 0, 1 - np.square(errors).sum(0) / np.where(spread > 0, spread, 1), np.nan)


def _errors(statistics: Statistics) -> np.ndarray:
    return statistics[ANSWER].astype(np.float64) - statistics[TARGET]


def _squares(statistics: Statistics) -> np.ndarray:
    """Return the mean squared error of each sample, (n,) float64."""
    return np.asarray(np.square(_errors(statistics)).mean(1))
