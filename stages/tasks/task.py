"""The interface of a task, such as classification. Only code under `stages/tasks` knows what a network's outputs mean.

A task has two parts. `Task` computes the metric with NumPy only, because a device has no torch. `Learning` has the loss and uses torch.
Stored results carry their `Metric`, so a report needs neither.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.results_table import Picture, ResultsTable

if TYPE_CHECKING:
    import torch

    from bonsai.stages.training.config import SoftTargets

Arrays = np.ndarray
"""Outputs of a network or targets, (n, ...), n samples. Only a task interprets them. Several outputs are joined to (n, total): see `separate`."""
Statistics = Mapping[str, np.ndarray]
"""Named arrays, (n, ...): what each sample contributes to the metric. The metric and its intervals are computed from these alone."""


class DataSpec(NamedTuple):
    """The properties of the data that networks, tasks and sources need.

    Attributes:
        image_shape: Shape of one input.
        num_classes: Number of classes.
        preprocess: How images become inputs; None if the samples are inputs already, or if only shapes are needed.
    """

    image_shape: tuple[int, ...]
    num_classes: int
    preprocess: Preprocess | None = None


class TensorSpec(NamedTuple):
    """One output of the exported network.

    Attributes:
        name: Name in the ONNX file.
        shape: Shape without the batch dimension.
        labelled: Whether it has one entry for each class.
    """

    name: str
    shape: tuple[int, ...]
    labelled: bool = False


class Interval(NamedTuple):
    """A figure with both ends of its 95 % interval."""

    found: float
    low: float
    high: float


class Baseline(NamedTuple):
    """What a network that has learnt nothing can reach, such as always predicting the largest class.

    Attributes:
        value: Value of the metric.
        how: How to reach it, as the subject of a sentence.
    """

    value: float
    how: str


class Difference(NamedTuple):
    """How far outputs are from the expected ones.

    Attributes:
        agreement: Share of the predictions, 0-1, that are the same; a sample may have several, such as one for each pixel.
        mean: Mean absolute difference.
        largest: Largest absolute difference.
        spread: Standard deviation of the expected outputs.
        peak: Largest absolute expected output.
    """

    agreement: float
    mean: float
    largest: float
    spread: float
    peak: float

    @classmethod
    def between(cls, found: Arrays, expected: Arrays, *, agreement: float) -> "Difference":
        """Return the difference of outputs of one shape, with the task's own agreement of predictions; NaN where one of them is no number."""
        with np.errstate(invalid="ignore", over="ignore"):  # it is the caller who refuses NaN
            apart = np.abs(found - expected)
            return cls(agreement, float(apart.mean()), float(apart.max()), float(expected.std()), float(np.abs(expected).max()))

    @property
    def relative(self) -> float:
        """The largest difference over the largest expected output; NaN if the expected outputs are all 0."""
        return self.largest / self.peak if self.peak else math.nan


class Provable(NamedTuple):
    """The best result that a number of samples can prove.

    Attributes:
        drop: Smallest drop of the metric, if the metric does not rise.
        metric: Best value of the metric.
        assumed: What `drop` takes for granted before anything is trained; empty for nothing.
    """

    drop: float
    metric: float
    assumed: str = ""


class Task(Protocol):
    """How outputs are judged. No method imports torch."""

    @property
    def metric(self) -> Metric:
        """The figure that gates, learning curve and reports show."""
        ...

    @property
    def learning(self) -> str:
        """Import string ``module:factory`` of the `Learning`; the factory takes a `TrainConfig`."""
        ...

    @property
    def moves_with_image(self) -> bool:
        """Whether a target is drawn over its image (n, h, w), so that random geometry changes both alike."""
        ...

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the outputs of the exported network."""
        ...

    def check_targets(self, targets: np.ndarray, spec: DataSpec, classes: tuple[str, ...]) -> np.ndarray:
        """Return the targets of some samples, (n, ...), in the task's own type.

        Args:
            targets: As a loader gives them.
            spec: Shape of the samples.
            classes: Names of the classes, labels or figures.

        Raises:
            ConfigError: The task has no such targets; the message says which it has.
        """
        ...

    def strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Return labels, (n,) int64, whose shares are the same in every part of a split; None for a plain random split.

        They are the classes, all of which must have samples, or any other numbers from the number of classes on.
        """
        ...

    def class_weights(self, targets: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Return the `training.loss.weights` with which rare classes, labels or figures count more: `training.balance` ``weights``."""
        ...

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        """Return what each sample contributes to the metric."""
        ...

    def reduce(self, statistics: Statistics) -> float:
        """Return the metric."""
        ...

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        """Return the metric with its interval. If `samples` is given, the interval is a forecast for that many new samples."""
        ...

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        """Return the drop of the metric on the same samples with its interval; `samples` as for `bounds`."""
        ...

    def baseline(self, targets: Arrays) -> Baseline:
        """Return what a network that has learnt nothing can reach on these targets."""
        ...

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        """Return how far outputs are from expected ones of the same shape; used to check exports, golden outputs and rewritten networks."""
        ...

    def provable(self, targets: Arrays, samples: int, differing: float = 0.0) -> Provable | None:
        """Return the best result that a number of samples can prove; None if that depends on how large the errors are.

        Args:
            targets: (n, ...): of some samples, which the others are taken to be like.
            samples: Number of samples.
            differing: Share of the predictions, 0-1, on which the two networks differ, half of them each way.
        """
        ...

    def samples_to_prove(self, drop: float, targets: Arrays) -> int | None:
        """Return how many samples prove that the metric fell by at most `drop` if no prediction changes; `targets` and None as for `provable`."""
        ...

    def tables(self, statistics: Statistics, classes: Sequence[str]) -> tuple[ResultsTable, ...]:
        """Return the results by class, label or figure, for the report."""
        ...

    def pictures(self, images: np.ndarray, found: Arrays, targets: Arrays) -> tuple[Picture, ...]:
        """Return pictures of a few results for the report; none where pictures show nothing.

        Args:
            images: (n, c, h, w) float32 inputs.
            found: Outputs for them.
            targets: Their targets.
        """
        ...

    def to_tensors(self, dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
        """Return the arrays that a package stores, from the test results of the dense and the shipped engine; `dense` is None if there is no reference."""
        ...

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics | None, Statistics]:
        """Return the statistics of the dense engine, or None if there is no reference, and of the shipped engine.

        Raises:
            ValueError: The tensors are not those that `to_tensors` returns; the message lists those.
        """
        ...


class Learning(Protocol):
    """The loss, and how to train with it. A new one is made for each training; it has no state."""

    def loss(self, found: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Return the mean loss of a batch."""
        ...

    def imitate(self, student: "torch.Tensor", teacher: "torch.Tensor", how: "SoftTargets") -> "torch.Tensor":
        """Return the distillation loss, already multiplied by its weight."""
        ...

    def noise(self, found: "torch.Tensor", expected: "torch.Tensor") -> float:
        """Return the squared error of outputs over the square of the expected ones, ignoring differences that change no prediction."""
        ...

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        """Check the outputs that a network returned for this number of samples.

        Raises:
            ConfigError: The loss cannot be computed from them.
        """
        ...

    def example_targets(self, samples: int, spec: DataSpec) -> "torch.Tensor":
        """Return targets to try one training step with."""
        ...


JOINED = "+"
"""Stands between the names of outputs that are joined."""


def separate(joined: Arrays, outputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Return outputs by name, (n, ...) each, from what an engine with several outputs gives: all of them flattened and joined, (n, total)."""
    if len(outputs) == 1:
        return {outputs[0].name: joined}
    ends = np.cumsum([math.prod(output.shape) for output in outputs])
    return {output.name: part.reshape(-1, *output.shape) for output, part in zip(outputs, np.split(joined, ends[:-1], axis=1), strict=True)}


def join(parts: Sequence[Statistics]) -> Statistics:
    """Return the concatenated statistics of several batches of samples."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def samples_of(statistics: Statistics) -> int:
    """Return the number of samples."""
    return len(next(iter(statistics.values())))
