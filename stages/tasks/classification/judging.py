"""How a classifier is judged: by top-1, the share of samples whose highest logit is the label's."""

from collections.abc import Mapping

import numpy as np

from bonsai.stages.tasks.intervals import images_to_prove, least_provable_drop, paired_drop, wilson_of_share
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.task import Arrays, Baseline, DataSpec, Difference, Interval, Provable, Statistics, TensorSpec

LABEL, ANSWER = "label", "answer"
"""Statistics: the class and the predicted class of each sample, (n,) int64 each."""
LABELS, DENSE, SHIPPED = "labels", "dense", "engine"
"""Tensors that a package stores, (n,) int64 each: the classes of the test samples, and the predictions of both engines."""
KEPT = f"{LABELS}, {DENSE} and {SHIPPED}, (n,) int64 each; no {DENSE} if there is no reference"


class Classification:
    """Single-label classification; `found` are logits (n, classes) float32, `targets` (n,) int64."""

    metric = Metric(name="top1", label="top-1", unit="%", direction="higher", best=1.0)
    learning = "bonsai.stages.tasks.classification.learning:ClassificationLearning"

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the logits."""
        return (TensorSpec("logits", (spec.num_classes,), labelled=True),)

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
        with np.errstate(invalid="ignore", over="ignore"):  # it is the caller who refuses NaN
            apart = np.abs(found - expected)
            return Difference(
                agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
                mean=float(apart.mean()),
                largest=float(apart.max()),
                spread=float(expected.std()),
                peak=float(np.abs(expected).max()),
            )

    def provable(self, samples: int) -> Provable:
        """Return the least drop and the best top-1 that so many samples can show."""
        return Provable(least_provable_drop(samples), wilson_of_share(1, samples)[0])

    def samples_to_prove(self, drop: float) -> int:
        """Return how many samples, all alike before and after, show that top-1 fell by no more than `drop`."""
        return images_to_prove(drop)

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
