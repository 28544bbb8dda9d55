"""How a network of several labels is judged: by mAP, the mean over the labels of the average precision of the ranking by logit."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.intervals import least_provable_fall, mean_interval, samples_for, typical_loss
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.results_table import Picture, ResultsTable, percent
from bonsai.stages.tasks.stored import Kinds, pack, unpack
from bonsai.stages.tasks.task import Arrays, Baseline, DataSpec, Difference, Interval, Provable, Statistics, TensorSpec

SCORE, LABELLED = "score", "label"
"""Statistics: the logit of each label, (n, labels) float32, and whether the sample has it, (n, labels) uint8."""
KINDS: Kinds = {SCORE: ("float32", 2), LABELLED: ("uint8", 2)}
BEYOND = 1.5
"""How much more a lost sample may cost than its own labels' precision: it may stand above others too. Found by `tests/simulated_results.py`."""
FEWEST = 10
"""Fewest samples of a stratum of the split."""


class MultiLabel:
    """Several labels a sample, each there or not; `found` are logits (n, labels) float32, `targets` (n, labels) float32 of 0 and 1."""

    metric = Metric(name="map", label="mAP", unit="%", direction="higher", best=1.0)
    learning = "bonsai.stages.tasks.multi_label.learning:MultiLabelLearning"
    moves_with_image = False

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the logits."""
        return (TensorSpec("logits", (spec.num_classes,), labelled=True),)

    def check_targets(self, targets: np.ndarray, spec: DataSpec, classes: tuple[str, ...]) -> np.ndarray:
        """Return labels as float32.

        Raises:
            ConfigError: They are not 0 or 1 for each label.
        """
        allowed = f"(n, {len(classes)}) of 0 and 1: for each sample, whether it has each label"
        given = f"{targets.dtype} {list(targets.shape)}"
        if targets.ndim != 2 or targets.shape[1] != len(classes):
            fix = "return a row of zeros and ones for each image, a column for each name of `classes`; one class for each image is task classification"
            raise ConfigError(describe("targets are not one column for each label", given=given, allowed=allowed, fix=fix))
        if targets.dtype.kind not in "biuf" or not ((targets == 0) | (targets == 1)).all():
            unknown = targets.dtype.kind == "f" and np.isnan(targets).any()
            fix = "leave out the samples whose labels are not known" if unknown else "write 1 where a sample has the label and 0 where it has not"
            raise ConfigError(describe("labels are neither 0 nor 1", given=given + (", with NaN" if unknown else ""), allowed=allowed, fix=fix))
        return targets.astype(np.float32)

    def strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the rarest label of each sample, counted from the number of labels on; small strata are one. None where these are too few to split by."""
        order = np.argsort(targets.sum(0), kind="stable")
        has = targets[:, order] > 0
        rarest = np.where(has.any(1), order[has.argmax(1)], targets.shape[1])
        counts = np.bincount(rarest, minlength=targets.shape[1] + 1)
        strata = np.where(counts[rarest] < FEWEST, targets.shape[1], rarest)
        return strata + targets.shape[1] if np.unique(strata, return_counts=True)[1].min() >= FEWEST else None

    def class_weights(self, targets: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Return for each label the square root of the samples without it over those with it."""
        with_label = targets.sum(0)
        return tuple(float(np.sqrt(max(len(targets) - count, 1) / max(count, 1))) for count in with_label)

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        """Return the logits and the labels of each sample."""
        return {SCORE: np.asarray(found, dtype=np.float32), LABELLED: np.asarray(targets).astype(np.uint8)}

    def reduce(self, statistics: Statistics) -> float:
        """Return mAP, 0-1, over the labels that at least one sample has.

        Raises:
            ConfigError: No sample has a label.
        """
        return float(_of_labels(statistics).precision.mean())

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        """Return mAP with its score interval, in which an unseen sample may be ranked as badly as can be."""
        ranked = _of_labels(statistics)
        found, low, high = mean_interval(float(ranked.precision.mean()), ranked.influence, ranked.weight, samples)
        return Interval(found, max(low, 0.0), min(high, 1.0))

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        """Return the drop of mAP on the same samples with its score interval."""
        earlier, later = _of_labels(before), _of_labels(after)
        fall = float(earlier.precision.mean() - later.precision.mean())
        drop, low, high = mean_interval(fall, earlier.influence - later.influence, earlier.weight, samples)
        return Interval(drop, max(low, -1.0), min(high, 1.0))

    def baseline(self, targets: Arrays) -> Baseline:
        """Return the mAP of a ranking at random: the mean share of the samples that have a label."""
        shares = targets.mean(0)
        return Baseline(float(shares[shares > 0].mean()), "ranking at random")

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        """Return how far logits lie from expected ones, and the share of labels with the same sign; NaN where one of them is no number."""
        return Difference.between(found, expected, agreement=float(((found > 0) == (expected > 0)).mean()))

    def provable(self, targets: Arrays, samples: int, differing: float = 0.0) -> Provable:
        """Return the least drop and the best mAP that so many samples can show, if these labels are as rare among them."""
        reach = _reach(targets)
        return Provable(least_provable_fall(reach, samples, differing), 1 - least_provable_fall(reach, samples))

    def samples_to_prove(self, drop: float, targets: Arrays) -> int:
        """Return how many samples, all ranked alike before and after, show that mAP fell by no more than `drop`."""
        return samples_for(drop / _reach(targets))

    def tables(self, statistics: Statistics, classes: Sequence[str]) -> tuple[ResultsTable, ...]:
        """Return the average precision of each label."""
        with_label = statistics[LABELLED].sum(0)
        shown = (average_precision(*columns)[0] if columns[1].any() else np.nan for columns in zip(statistics[SCORE].T, statistics[LABELLED].T, strict=True))
        rows = tuple((name, percent(precision), str(count)) for name, precision, count in zip(classes, shown, with_label, strict=True))
        return (ResultsTable(caption="Average precision by label", headers=("label", "AP", "images that have it"), rows=rows),)

    def pictures(self, images: np.ndarray, found: Arrays, targets: Arrays) -> tuple[Picture, ...]:
        """Return none."""
        return ()

    def to_tensors(self, dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
        """Return logits and labels of both engines."""
        return pack(dense, shipped)

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics | None, Statistics]:
        """Return what `to_tensors` was given.

        Raises:
            ValueError: The tensors are others.
        """
        return unpack(tensors, KINDS)


MULTI_LABEL = MultiLabel()


class Ranked(NamedTuple):
    """The rankings of all labels that a sample has.

    Attributes:
        precision: (labels,) average precision.
        influence: (n,) how much mAP rises with the weight of each sample.
        weight: How much mAP falls at most with the share of samples that are ranked last.
    """

    precision: np.ndarray
    influence: np.ndarray
    weight: float


def _of_labels(statistics: Statistics) -> Ranked:
    labelled = statistics[LABELLED]
    columns = _present(labelled)
    found = [average_precision(statistics[SCORE][:, column], labelled[:, column]) for column in columns]
    return Ranked(np.array([precision for precision, _ in found]), np.mean([influence for _, influence in found], axis=0), _reach(labelled))


def _reach(labelled: np.ndarray) -> float:
    """Return by how much mAP may fall with the share of samples that are ranked as badly as can be, whatever mAP is."""
    there = labelled[:, _present(labelled)]
    return BEYOND * typical_loss((there / there.mean(0)).mean(1))


def _present(labelled: np.ndarray) -> np.ndarray:
    """Return the numbers of the labels that at least one sample has.

    Raises:
        ConfigError: There are none.
    """
    columns = np.flatnonzero(labelled.any(0))
    if not len(columns):
        problem = "no sample of a part of the data has a label, so that there is no mAP"
        raise ConfigError(describe(problem, given=f"{len(labelled)} samples", allowed="samples that have a label in every part", fix="add such samples"))
    return columns


def average_precision(scores: np.ndarray, labelled: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the average precision of one label, and how much it rises with the weight of each sample.

    The average precision is the mean, over the samples that have the label, of the share of such samples among those with at least their score. With
    weights w it is sum_j w_j T_j / N_j / sum_j w_j, where N_j is the weight of the samples with at least the score of j, and T_j that of those with the
    label. The second result is n times its derivative by each weight, at equal weights (the infinitesimal jackknife).

    Args:
        scores: (n,) float; higher is more likely. Samples with one score count together.
        labelled: (n,) 0 or 1, at least one of them 1.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, has = -scores[order], labelled[order] > 0
    last, first = np.searchsorted(ranked, ranked, side="right"), np.searchsorted(ranked, ranked, side="left")
    both, all_ = np.cumsum(has)[last - 1].astype(np.float64), last.astype(np.float64)
    precision = both / all_
    average = float(precision[has].mean())
    below = np.stack([np.where(has, both / all_**2, 0), np.where(has, 1 / all_, 0)])
    lost, won = np.cumsum(below[:, ::-1], axis=1)[:, ::-1][:, first]  # over the samples that have the label and no higher score
    influence = np.empty(len(scores))
    influence[order] = (has * (precision - average + won) - lost) * len(scores) / has.sum()
    return average, influence
