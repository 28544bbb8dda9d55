"""The seam between Bonsai and what a network is for. Nothing outside this room knows what an output means.

A task has two halves. `Task` judges outputs with NumPy alone, since the device side has no torch. `Learning` trains, with torch. A `Metric`
travels with the records, so that a report needs no task at all.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.tasks.metric import Metric

if TYPE_CHECKING:
    import torch

    from bonsai.stages.training.config import SoftTargets

Arrays = np.ndarray
"""A network's outputs for some samples, or their targets, samples first. Only a task looks inside."""
Statistics = Mapping[str, np.ndarray]
"""What each sample contributes to the metric, by name, samples first: the smallest record from which metric and intervals follow."""


class DataSpec(NamedTuple):
    """What networks, tasks and sources must know of the data.

    Attributes:
        image_shape: Shape of one input.
        num_classes: Number of classes.
        preprocess: How images become inputs; None where they are inputs as they are, and where nobody asks for more than shapes.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    preprocess: Preprocess | None = None


class TensorSpec(NamedTuple):
    """One output of the exported network.

    Attributes:
        name: In the ONNX file.
        shape: Behind the batch.
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
    """What a network reaches that has learnt nothing.

    Attributes:
        value: Of the metric.
        how: How it is reached, as the subject of a sentence.
    """

    value: float
    how: str


class Difference(NamedTuple):
    """How far outputs lie from expected ones.

    Attributes:
        agreement: Share of the samples, 0-1, on which both lead to the same prediction.
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

    @property
    def relative(self) -> float:
        """The largest difference over the largest expected output; NaN where that is none."""
        return self.largest / self.peak if self.peak else math.nan


class Provable(NamedTuple):
    """What so many samples can show at best.

    Attributes:
        drop: Least drop of the metric, unless the metric rises.
        metric: Best value of the metric.
    """

    drop: float
    metric: float


class Task(Protocol):
    """How outputs are judged. No method imports torch."""

    @property
    def metric(self) -> Metric:
        """The figure that gates, learning curve and reports show."""
        ...

    @property
    def learning(self) -> str:
        """Import string ``module:factory`` of the torch half; the factory takes a `TrainConfig`."""
        ...

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the outputs of the exported network."""
        ...

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        """Return what each sample contributes to the metric."""
        ...

    def reduce(self, statistics: Statistics) -> float:
        """Return the metric."""
        ...

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        """Return the metric with its interval; as it would be if `samples` other samples showed the same, where their number is given."""
        ...

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        """Return the drop of the metric on the same samples with its interval; `samples` as for `bounds`."""
        ...

    def baseline(self, targets: Arrays) -> Baseline:
        """Return what a network reaches that has learnt nothing of these targets."""
        ...

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        """Return how far outputs lie from expected ones of the same shape: for export, golden results and rewritten networks."""
        ...

    def provable(self, samples: int) -> Provable | None:
        """Return what so many samples can show at best; None where that depends on the data."""
        ...

    def samples_to_prove(self, drop: float) -> int | None:
        """Return how many samples show that the metric fell by no more than `drop`, where nothing changes; None where that depends on the data."""
        ...

    def to_tensors(self, dense: Statistics, shipped: Statistics) -> dict[str, np.ndarray]:
        """Return what a package keeps of the dense and the shipped engine on the test samples."""
        ...

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics, Statistics]:
        """Return the statistics of the dense and the shipped engine.

        Raises:
            ValueError: The tensors are others than `to_tensors` returns; the message says which these are.
        """
        ...


class Learning(Protocol):
    """How a network is trained. It is made anew for each training, and keeps nothing."""

    def loss(self, found: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Return the mean loss of a batch."""
        ...

    def imitate(self, student: "torch.Tensor", teacher: "torch.Tensor", how: "SoftTargets") -> "torch.Tensor":
        """Return the teacher's part of the loss, with its weight."""
        ...

    def noise(self, found: "torch.Tensor", expected: "torch.Tensor") -> float:
        """Return the squared error of outputs over the square of the expected ones, less what no prediction depends on."""
        ...

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        """Check what a network returned for so many samples.

        Raises:
            ConfigError: The loss cannot be computed from it.
        """
        ...

    def example_targets(self, samples: int, spec: DataSpec) -> "torch.Tensor":
        """Return targets that a training step can be tried with."""
        ...


def join(parts: Sequence[Statistics]) -> Statistics:
    """Return the statistics of several parts of the samples, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def samples_of(statistics: Statistics) -> int:
    """Return the number of samples."""
    return len(next(iter(statistics.values())))
