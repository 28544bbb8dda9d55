"""The figures of a report: each says the same as a table beside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bonsai.profiles.located_yaml import Record
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.reporting.svg import PALETTE, draw
from bonsai.stages.selection.latency import OperatorForecast
from bonsai.stages.tasks.metric import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASES = {"trunk": ("dense", "dense", "o"), "branch": ("pruned", "pruned", "s"), "qat": ("QAT", "shipped", "D")}
"""Name, colour and marker by phase. Markers help readers who cannot tell the colours apart."""
MARKERS = {"dense": "o", "pruned": "s"}
SHIPPED_MARKERS = "D^vP<>X*ph"
"""Markers of the packages in a comparison, in this order."""
ROW = 0.26
"""Height of a row of bars, in inches."""


class Point(Record):
    """An engine's accuracy and latency.

    Attributes:
        latency: Latency in the unit of the axis.
        is_front: Whether no other engine is as accurate and as fast, and better in one of the two.
    """

    label: str
    kind: Literal["dense", "pruned", "shipped"]
    latency: float
    value: float
    low: float
    high: float
    estimated: bool
    is_front: bool = False


def mark_front(points: Sequence[Point], metric: Metric) -> tuple[Point, ...]:
    """Return the points with the Pareto front marked."""

    def beaten(point: Point) -> bool:
        return any(
            other.latency <= point.latency
            and metric.merit(other.value) >= metric.merit(point.value)
            and (other.latency, other.value) != (point.latency, point.value)
            for other in points
        )

    return tuple(point.model_copy(update={"is_front": not beaten(point)}) for point in points)


def draw_tradeoff(points: Sequence[Point], metric: Metric, latency_label: str, part: Literal["validation", "test"], limit: float | None) -> str:
    """Draw accuracy with its interval against latency, the budget, and the Pareto front where it has two points or more."""
    labels = latency_label, f"{part} {metric.axis} (bars: 95 %)"
    return draw(partial(_tradeoff, points=points, scale=metric.scale, labels=labels, limit=limit), 2.9 + 0.2 * ceil((len(points) + 2) / 2))


def draw_widths(dense: Mapping[str, int], asked: Mapping[str, int], kept: Mapping[str, int]) -> str:
    """Draw the channels of every group: dense, asked and kept."""
    return draw(partial(_widths, dense=dense, asked=asked, kept=kept), 1.0 + ROW * len(dense))


def draw_epi(trigger: Trigger) -> str:
    """Draw EPI with its threshold and the moment it fired."""
    return draw(lambda figure: _epi(figure.subplots(), trigger), 2.8)


def draw_learning(trigger: Trigger, history: Sequence[History], cuts: Sequence[float], metric: Metric) -> str:
    """Draw validation accuracy by epoch, with the cuts."""
    return draw(lambda figure: _learning(figure.subplots(), trigger, history, cuts, metric), 3.0)


def draw_operators(operators: Sequence[OperatorForecast]) -> str:
    """Draw the predicted milliseconds of operators, dense and pruned."""
    return draw(partial(_operators, operators=operators), 1.0 + ROW * len(operators))


def learning_curve(dense: Sequence[History], branch: Sequence[History]) -> tuple[History, ...]:
    """Return the trunk's epochs to its end, and what a branch trained after it left."""
    return (*dense, *(line for line in branch if line.phase != "trunk"))


def draw_training(file: Path, trigger: Trigger, history: Sequence[History], cuts: Sequence[float], metric: Metric) -> None:
    """Write EPI above the learning curve as an SVG file of its own, for the model card."""

    def paint(figure: "Figure") -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        _learning(below, trigger, history, cuts, metric)  # first: it reaches further, and the first to set the shared limits sets them for both
        _epi(above, trigger)
        above.set(xlabel="")

    file.write_text(draw(paint, 5.0), encoding="utf-8")


def _tradeoff(figure: "Figure", points: Sequence[Point], scale: int, labels: tuple[str, str], limit: float | None) -> None:
    axis = figure.subplots()
    front = sorted((point.latency, scale * point.value) for point in points if point.is_front)
    if len(front) > 1:
        axis.step(*zip(*front, strict=True), where="post", color=PALETTE["quiet"], lw=1, label="Pareto front")
    shipped = cycle(SHIPPED_MARKERS)
    for point in points:
        marker = next(shipped) if point.kind == "shipped" else MARKERS[point.kind]
        spread = [[scale * (point.value - point.low)], [scale * (point.high - point.value)]]
        colour = PALETTE[point.kind]
        face = "none" if point.estimated else colour
        axis.errorbar([point.latency], [scale * point.value], yerr=spread, fmt=marker, ms=7, color=colour, mfc=face, lw=1.2, capsize=3, label=point.label)
    if limit is not None:
        axis.axvline(limit, ls="--", color=PALETTE["limit"], lw=1.2, label="budget")
    axis.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, None))
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)


def _widths(figure: "Figure", dense: Mapping[str, int], asked: Mapping[str, int], kept: Mapping[str, int]) -> None:
    axis, places = figure.subplots(), range(len(dense))
    axis.barh(places, list(dense.values()), height=0.72, color="none", edgecolor=PALETTE["dense"], lw=1, label="dense")
    axis.barh(places, [kept[group] for group in dense], height=0.72, color=PALETTE["shipped"], label="kept")
    axis.plot([asked[group] for group in dense], places, "|", ms=9, mew=2, color=PALETTE["limit"], label="asked")
    axis.set_xlabel("channels")
    _name_rows(figure, axis, list(dense))


def _operators(figure: "Figure", operators: Sequence[OperatorForecast]) -> None:
    axis, places = figure.subplots(), range(len(operators))
    axis.barh(places, [operator.dense_ms for operator in operators], height=0.72, color="none", edgecolor=PALETTE["dense"], lw=1, label="dense")
    axis.barh(places, [operator.kept_ms for operator in operators], height=0.72, color=PALETTE["shipped"], label="pruned")
    axis.set_xlabel("ms, predicted")
    _name_rows(figure, axis, [operator.module for operator in operators])


def _name_rows(figure: "Figure", axis: "Axes", names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)


def _epi(axis: "Axes", trigger: Trigger) -> None:
    lowest = trigger.tau
    for values, colour, label, style in ((trigger.curve, "dense", "EPI (same widths)", "-"), (trigger.overlap, "pruned", "same channels", ":")):
        points = [(epoch, value) for epoch, value in zip(trigger.epochs, values, strict=True) if value is not None]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", ms=4, ls=style, color=PALETTE[colour], label=label)
            lowest = min(lowest, *(value for _, value in points))
    axis.axhline(trigger.tau, ls=":", color=PALETTE["quiet"], label=f"fires at {trigger.tau:g}")
    axis.axvline(trigger.epoch, ls="--", color=PALETTE["limit"], label="trigger")
    axis.set(
        xlabel="epoch", ylabel="similarity to the last checks", title=f"pruned {trigger.sentence}", xlim=(0, None), ylim=(lowest - 0.1 * (1.02 - lowest), 1.01)
    )
    axis.legend(fontsize=9)


def _learning(axis: "Axes", trigger: Trigger, history: Sequence[History], cuts: Sequence[float], metric: Metric) -> None:
    for phase, (label, colour, marker) in PHASES.items():
        points = [(line.epoch, metric.scale * line.validation) for line in history if line.phase == phase]
        if points:
            axis.plot(*zip(*points, strict=True), marker=marker, label=label, color=PALETTE[colour])
    for place, epoch in enumerate(cuts or (trigger.epoch,)):
        axis.axvline(epoch, ls="--", lw=1.2, color=PALETTE["limit"], label="cut" if place == 0 else None)
    axis.set(xlabel="epoch", ylabel=f"validation {metric.axis}", xlim=(0, None))
    axis.legend(fontsize=9)
