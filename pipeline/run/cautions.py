"""Warnings about accuracies that mean little: too few test images, or a dense network that has learnt next to nothing."""

from collections.abc import Sequence

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.measurement.verdicts import doubt_about
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.training.progress import say

LOOKED_AT = 500
"""Most test samples that are made to see their targets."""


def require_gates(dataset: Dataset, profiles: Sequence[HardwareProfile]) -> None:
    """Check limits on a metric that is a ratio 0-1.

    Raises:
        ConfigError: A limit is above 1, as one in per cent would be.
    """
    metric = task_named(dataset.task).metric
    for profile in profiles:
        limits = {"gates.max_drop": profile.gates.max_drop, "gates.min_metric": profile.gates.min_metric, "against.max_drop": profile.against.max_drop}
        above = [f"{name} {limit:g}" for name, limit in limits.items() if limit is not None and limit > 1]
        if metric.unit == "%" and above:
            problem = f"profile {profile.name}: a limit on {metric.label} is above 1"
            raise ConfigError(describe(problem, given=", ".join(above), allowed="a ratio 0-1, such as 0.02 for two points", fix="divide per cent by 100"))


def warn_of_few(dataset: Dataset, profiles: Sequence[HardwareProfile]) -> None:
    """Warn of accuracy gates that this number of test images, with these targets, cannot prove.

    A small drop can still be proven if the engine is better than the dense network; a limit on the metric itself cannot.
    """
    task, test_images = task_named(dataset.task), dataset.sizes["test"]
    targets = Part(dataset, "test").some_targets(LOOKED_AT)
    provable, metric = task.provable(targets, test_images), task.metric
    if provable is None:
        return
    assumed = f", {provable.assumed}" if provable.assumed else ""
    for profile in profiles:
        asked, least = profile.gates.max_drop, profile.gates.min_metric
        if asked is not None and asked < provable.drop:
            needed = f"at least {task.samples_to_prove(asked, targets)} are needed" if asked else "no number is enough"
            limit = f"cannot prove an accuracy drop below {provable.drop:.3f}{assumed}"
            say(f"warning: {profile.name}: {test_images} test images {limit}; the gate is {asked:g}: {needed}")
        if least is not None and metric.merit(least) > metric.merit(provable.metric):
            beyond = "above" if metric.direction == "higher" else "below"
            say(f"warning: {profile.name}: {test_images} test images cannot prove a {metric.label} {beyond} {provable.metric:.3f}; the gate is {least:g}")


def warn_of_chance(dense: Checkpoint, dataset: Dataset) -> None:
    """Warn if the dense network has learnt next to nothing; the gate on the drop is then undecided."""
    if doubt := doubt_of(dense.history[-1].validation, dataset):
        say(f"warning: {doubt}")


def doubt_of(validation: float, dataset: Dataset) -> str:
    """Return a sentence if a dense network with this metric on the validation part has learnt next to nothing; else an empty text."""
    return doubt_about(task_named(dataset.task), validation, Part(dataset, "validation").some_targets(), "validation")
