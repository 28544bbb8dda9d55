"""How a classifier is judged: by top-1, the share of samples whose highest logit is the label's."""

from collections.abc import Mapping, Sequence

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.intervals import images_to_prove, least_provable_drop, paired_drop, wilson_of_share
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.results_table import Picture, ResultsTable, percent
from bonsai.stages.tasks.task import Arrays, Baseline, DataSpec, Difference, Interval, Provable, Statistics, TensorSpec

LABEL, ANSWER = "label", "answer"
"""Statistics: the class and the predicted class of each sample, (n,) int64 each."""
LABELS, DENSE, SHIPPED = "labels", "dense", "engine"
"""Tensors that a package stores, (n,) int64 each: the classes of the test samples, and the predictions of both engines."""
KEPT = f"{LABELS}, {DENSE} and {SHIPPED}, (n,) int64 each; no {DENSE} if there is no reference"

LABELS_ARE = "(n,) int64 as a torch tensor: one class for each image, counted from 0"
MOST_CONFUSED = 12
"""Largest number of classes with a table of confusions."""


class Classification:
    """Single-label classification; `found` are logits (n, classes) float32, `targets` (n,) int64."""

    metric = Metric(name="top1", label="top-1", unit="%", direction="higher", best=1.0)
    learning = "bonsai.stages.tasks.classification.learning:ClassificationLearning"
    moves_with_image = False

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the logits."""
        return (TensorSpec("logits", (spec.num_classes,), labelled=True),)

    def check_targets(self, targets: np.ndarray, spec: DataSpec, classes: tuple[str, ...]) -> np.ndarray:
        """Return the classes of samples as int64.

        Raises:
            ConfigError: They are not one class for each sample.
        """
        given = f"{targets.dtype} {list(targets.shape)}"
        if len(classes) < 2:
            fix = "name every class once, in the order of the labels"
            raise ConfigError(describe("classes are no names of at least two classes", given=str(classes), allowed="at least two", fix=fix))
        if targets.ndim >= 3:
            fix = "masks need a segmentation network: set `task: segmentation`; or return one class for each image"
            raise ConfigError(describe("labels are masks, or are none", given=given, allowed=LABELS_ARE, fix=fix))
        if targets.ndim == 2:
            fix = "one column: labels[:, 0]; one-hot rows: labels.argmax(1); several labels for one image: set `task: multi_label`"
            raise ConfigError(describe("there are several labels for each image", given=given, allowed=LABELS_ARE, fix=fix))
        if targets.ndim != 1 or targets.dtype.kind in "fc":
            fix = "whole numbers: labels.long(); figures to predict: set `task: regression`"
            raise ConfigError(describe("labels are no whole numbers", given=given, allowed=LABELS_ARE, fix=fix))
        if targets.dtype != np.int64:
            raise ConfigError(describe("labels are another kind of number", given=given, allowed=LABELS_ARE, fix="convert them: labels.long()"))
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= len(classes):
            from_one = low == 1 and high == len(classes)
            fix = "the labels count from 1: subtract 1, labels - 1" if from_one else "count the classes from 0, and name every class in `classes`"
            given = f"{low} to {high}, and {len(classes)} classes"
            raise ConfigError(describe("labels name classes that are not there", given=given, allowed=f"0 to {len(classes) - 1}", fix=fix))
        return targets

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the classes: every part has each class's share."""
        return targets

    def class_weights(self, targets: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Return the mean number of samples of a class over the class's own."""
        counts = np.bincount(targets, minlength=num_classes)
        return tuple(float(counts.mean() / max(count, 1)) for count in counts)

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        """Return the class of each sample, and what it was taken for."""
        return {LABEL: np.asarray(targets, dtype=np.int64), ANSWER: found.argmax(1).astype(np.int64)}

    def reduce(self, statistics: Statistics) -> float:
        """Return top-1, 0-1."""
        return float(hits(statistics).mean())

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        """Return top-1 with Wilson's interval."""
        share, count = self.reduce(statistics), len(statistics[LABEL])
        return Interval(share, *wilson_of_share(share, count if samples is None else samples))

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        """Return the drop of top-1 with Tango's interval for paired samples."""
        return Interval(*paired_drop(hits(before), hits(after), samples))

    def baseline(self, targets: Arrays) -> Baseline:
        """Return the share of the largest class."""
        return Baseline(int(np.bincount(targets).max()) / len(targets), "always naming the largest class")

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        """Return how far logits lie from expected ones; NaN where one of them is no number."""
        return Difference.between(found, expected, agreement=float((found.argmax(1) == expected.argmax(1)).mean()))

    def provable(self, targets: Arrays, samples: int, differing: float = 0.0) -> Provable:
        """Return the least drop and the best top-1 that so many samples can show, whatever their classes are."""
        return Provable(least_provable_drop(samples, differing), wilson_of_share(1, samples)[0])

    def samples_to_prove(self, drop: float, targets: Arrays) -> int:
        """Return how many samples, all alike before and after, show that top-1 fell by no more than `drop`."""
        return images_to_prove(drop)

    def tables(self, statistics: Statistics, classes: Sequence[str]) -> tuple[ResultsTable, ...]:
        """Return how many samples of each class are right, and for few classes what the others were taken for."""
        counts = confusion(statistics, len(classes))
        rows = []
        for place, (name, line) in enumerate(zip(classes, counts, strict=True)):
            own, wrong = line[place], np.where(np.arange(len(line)) == place, 0, line)
            taken = f"{classes[int(wrong.argmax())]} ({wrong.max()})" if wrong.any() else "-"
            rows.append((name, str(line.sum()), _share(own, line.sum()), _share(own, counts[:, place].sum()), taken))
        headers = ("class", "images", "found (recall)", "right where named (precision)", "most often taken for")
        found = (ResultsTable(caption="Results by class", headers=headers, rows=tuple(rows)),)
        if len(classes) > MOST_CONFUSED:
            return found
        matrix = tuple((name, *map(str, line)) for name, line in zip(classes, counts, strict=True))
        return (*found, ResultsTable(caption="Confusion: a row for each class, a column for what it was taken for", headers=("class", *classes), rows=matrix))

    def pictures(self, images: np.ndarray, found: Arrays, targets: Arrays) -> tuple[Picture, ...]:
        """Return none."""
        return ()

    def to_tensors(self, dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
        """Return the classes, and what both engines took the samples for."""
        reference = {} if dense is None else {DENSE: dense[ANSWER]}
        return {LABELS: shipped[LABEL], **reference, SHIPPED: shipped[ANSWER]}

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics | None, Statistics]:
        """Return what `to_tensors` was given.

        Raises:
            ValueError: The tensors are others.
        """
        arrays = [tensors[name] for name in (LABELS, SHIPPED, DENSE) if name in tensors]
        if not {LABELS, SHIPPED} <= tensors.keys() or any(a.dtype != np.int64 or a.ndim != 1 or not a.size or len(a) != len(arrays[0]) for a in arrays):
            raise ValueError(KEPT)
        _, shipped, *dense = ({LABEL: arrays[0], ANSWER: array} for array in arrays)
        return dense[0] if dense else None, shipped


CLASSIFICATION = Classification()


def hits(statistics: Statistics) -> np.ndarray:
    """Return whether each sample was taken for what it is, (n,) bool."""
    return np.asarray(statistics[LABEL] == statistics[ANSWER])


def confusion(statistics: Statistics, num_classes: int) -> np.ndarray:
    """Return how many samples of each class were taken for each, (classes, classes) int64."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (statistics[LABEL], statistics[ANSWER]), 1)
    return counts


def _share(part: int, whole: int) -> str:
    return percent(part / whole if whole else np.nan)
