"""Records of the decisions that led to an engine."""

from typing import ClassVar

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Precision
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.recovery import Recovery
from bonsai.stages.selection.latency import Forecast
from bonsai.stages.selection.loop import Fit, Round
from bonsai.stages.selection.resolution_records import Resolution
from bonsai.stages.tasks.naming import FigureRecord


class Attempt(Record):
    """One branch that was trained for a target; latencies in milliseconds.

    Attributes:
        engine_ms: Latency of the finished engine: measured, or estimated if the device is not here.
        rounds: The untrained networks that were timed before it.
    """

    widths: dict[str, int]
    predicted_ms: float
    engine_ms: float
    rounds: tuple[Round, ...]


class Tried(FigureRecord):
    """One precision that was tried. Its figures are stored under the metric's name, as ``validation_<metric>``.

    Attributes:
        metric: Name of the task's metric.
        validation: Metric of its engine on the validation images; the precision is chosen by it. None if no engine was trained.
        test: Metric on the test images; only for the shipped engine, since no other runs them.
        latency: Latency of the engine over the budget.
        outcome: Result, in a few words.
    """

    FORMS: ClassVar = {"validation": "validation_{}", "test": "test_{}"}

    precision: str
    validation: float | None
    test: float | None
    latency: float | None
    outcome: str

    @classmethod
    def left_out(cls, precision: str, metric: str, outcome: str) -> "Tried":
        """Return what is told of a precision that was left out before training."""
        return cls(precision=precision, metric=metric, validation=None, test=None, latency=None, outcome=outcome)


class Decisions(Record):
    """How an engine came about, for its model card and report.

    Attributes:
        recipe: The recipe, whole, as JSON.
        trigger: When the branch left the trunk.
        cuts: Epochs at which channels were removed; with a soft schedule masked, and removed at the last.
        criterion: Criterion by which channels were ranked.
        fit: Which widths fit the budget, chosen at the trigger.
        attempts: The branches that were trained, the last correcting the first.
        tried: The precisions among which the engine's was chosen, and those left out before training; empty where there is only one.
        kept_widths: Channels per group that were kept: other ones where they were chosen again between cuts.
        dense_widths: Channels per group of the dense network.
        table_source: Whether the latency table was measured, estimated, or measured elsewhere and where.
        forecast: Latency that the table predicts for every operator, dense and cut.
        dense_history: The learning curve of the trunk, whose end is the dense reference; if there is none, or it was given, up to where the branch left.
        dense_ms: Latency of the dense network at precisions that were not built, predicted by the latency tables.
        recovery: What the training after the last cut took, where its length was its own.
        resolutions: The sizes of images among which the engine's was chosen; empty where there is no choice.
        positions: Outputs that each channel of a group stands for in the layer that names it, such as those of an attention head, where these are several.
    """

    recipe_name: str
    recipe: str
    trigger: Trigger
    cuts: tuple[float, ...]
    criterion: str
    fit: Fit
    attempts: tuple[Attempt, ...]
    tried: tuple[Tried, ...]
    dense_widths: dict[str, int]
    kept_widths: dict[str, int]
    table_source: str
    forecast: Forecast
    dense_history: tuple[History, ...]
    dense_ms: dict[Precision, float]
    recovery: Recovery | None = None
    positions: dict[str, int] = {}
    resolutions: tuple[Resolution, ...] = ()

    def outputs(self, widths: dict[str, int]) -> int:
        """Return how many outputs of layers all groups have together, at these widths."""
        return sum(width * self.positions.get(group, 1) for group, width in widths.items())
