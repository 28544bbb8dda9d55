"""Prepares a package's manifest for the report."""

from typing import NamedTuple

from bonsai.profiles.schema import Precision
from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.measurement.latency import ESTIMATE, Latency
from bonsai.stages.measurement.measurements import Accuracy, Row, has_reference
from bonsai.stages.reporting.checking import read_decisions
from bonsai.stages.reporting.content import Outcome
from bonsai.stages.tasks.metric import Metric


class SpeedUp(NamedTuple):
    """How many times as fast the shipped engine is; `mark` says that it is an estimate, unless both were measured on the device."""

    times: float
    mark: str

    def __str__(self) -> str:
        """Return it in a few characters."""
        return f"{self.times:.2f}x" + (f" ({self.mark})" if self.mark else "")


class Evidence:
    """A package: what was decided, and the engine beside the dense network.

    Args:
        manifest: Manifest of a finished package.

    Raises:
        VerificationError: Its facts contradict each other.
    """

    def __init__(self, manifest: PackageManifest) -> None:
        self.manifest = manifest
        self.decisions = read_decisions(manifest)
        self.dense = next(row for row in manifest.metrics if row.network == "dense")
        self.shipped = next(row for row in manifest.metrics if row.shipped)

    @property
    def metric(self) -> Metric:
        """What accuracies are of."""
        return self.manifest.metric

    @property
    def has_reference(self) -> bool:
        """Whether accuracy is compared with the dense network; without a reference it is only timed."""
        return has_reference(self.manifest.metrics)

    @property
    def reference(self) -> str:
        """The recipe's `training.reference`: ``trained``, ``given`` or ``none``."""
        training = self.manifest.recipe.get("training")
        return str(training.get("reference", "trained")) if isinstance(training, dict) else "trained"

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return self.manifest.profile.name

    @property
    def is_estimated(self) -> bool:
        """Whether the latency is an estimate."""
        return latency_of(self.shipped).source == "estimated"

    @property
    def outcome(self) -> Outcome:
        """The verdict."""
        if any(gate.verdict == "missed" for gate in self.manifest.gates):
            return "missed"
        if self.manifest.warnings or not all(gate.passed for gate in self.manifest.gates):
            return "undecided"
        return "estimated" if self.is_estimated else "met"

    def milliseconds(self, row: Row) -> float:
        """Return a row's latency at the percentile that the budget is judged by."""
        return latency_of(row).at(self.manifest.profile.budget.percentile)

    @property
    def speed_up(self) -> SpeedUp:
        """Over the dense engine at the reference precision, FP32 unless the device has none."""
        return SpeedUp(self.milliseconds(self.dense) / self.milliseconds(self.shipped), latency_of(self.shipped).mark)

    def speed_up_over(self, precision: Precision) -> SpeedUp | None:
        """Return the speed-up over the dense network at a precision: against its engine, or what the latency table says of it; None without either."""
        if precision == self.dense.precision:
            return self.speed_up
        dense_ms = self.decisions.dense_ms.get(precision)
        return SpeedUp(dense_ms / self.milliseconds(self.shipped), latency_of(self.shipped).mark or ESTIMATE) if dense_ms is not None else None


def latency_of(row: Row) -> Latency:
    """Return the latency of a row that was built as an engine."""
    assert row.latency is not None
    return row.latency


def percent(ratio: float) -> str:
    """Return a ratio of 0-1 as per cent with two digits."""
    return f"{ratio:.2%}".replace("%", " %")


def written(metric: Metric, value: float) -> str:
    """Return a metric's value as `percent` writes ratios."""
    return metric.written(value).replace("%", " %")


def interval(accuracy: Accuracy, metric: Metric) -> str:
    """Return the 95 % interval of a metric."""
    return f"{metric.span(accuracy.low, accuracy.high, ' to ')} {metric.unit}".rstrip()
