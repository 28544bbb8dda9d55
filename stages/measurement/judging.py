"""Judges raw outputs and raw times that a device returned. All of it is pure: nothing here asks a device, or reads a file."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from bonsai.stages.backends.device import Timing
from bonsai.stages.measurement.calm import calm_part
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Accuracy, Part
from bonsai.stages.measurement.samples import summarise
from bonsai.stages.tasks.task import Statistics, Task, join, samples_of


class Targets(Protocol):
    """Targets of the images, in their order: an array, or what makes them when they are asked for."""

    def __getitem__(self, numbers: slice, /) -> np.ndarray:
        """Return the targets of some images, (n, ...)."""
        ...


class Judged(NamedTuple):
    """The figures of engines, by name.

    Attributes:
        statistics: The task's statistics of each image, for the engines whose outputs are given.
        latencies: Latency on the device, for the engines that were timed.
    """

    statistics: dict[str, Statistics]
    latencies: dict[str, Latency]


def judge(task: Task, targets: Targets, outputs: Mapping[str, Iterable[np.ndarray]], timing: Timing | None, *, clock: str, reference: str) -> Judged:
    """Judge engines by their outputs and their times.

    Args:
        task: Says what the outputs mean.
        targets: Targets of the images, in their order.
        outputs: By engine, the outputs of one image after another. An untrained dense engine has none.
        timing: Times of the engines; None if none was timed.
        clock: Clock of the median.
        reference: Name of the dense engine: it tells in which turns the machine was calm.
    """
    statistics = {name: observe(found, targets, task) for name, found in outputs.items()}
    return Judged(statistics, latencies_of(timing, clock, reference) if timing is not None else {})


def observe(outputs: Iterable[np.ndarray], targets: Targets, task: Task) -> Statistics:
    """Return the task's statistics of each image, given the outputs of one image after another."""
    return join([task.per_sample(found, targets[place : place + 1]) for place, found in enumerate(outputs)])


def accuracy_of(statistics: Statistics, task: Task, by: str, part: Part) -> Accuracy:
    """Return the metric with its interval."""
    value, low, high = task.bounds(statistics)
    return Accuracy(metric=task.metric.name, value=value, low=low, high=high, n=samples_of(statistics), measured_by=by, part=part)


def latencies_of(timing: Timing, clock: str, reference: str) -> dict[str, Latency]:
    """Return the latency of every engine: the median of the turns in which the machine was calm, the tail and the spread of all runs."""
    calm = calm_part(timing.samples, clock, timing.turns, reference)
    return {name: summarise(samples, clock).with_median(summarise(calm[name], clock)) for name, samples in timing.samples.items()}
