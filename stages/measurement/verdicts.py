"""Decides which precision ships, and whether the engine meets its gates."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bonsai.profiles.schema import Gates, HardwareProfile, Precision
from bonsai.stages.backends.engine import Engine
from bonsai.stages.measurement.budget_gates import forecast_latency, judge_latency, judge_others, judge_point, named_at, other_gates, tail_of, verdict_of
from bonsai.stages.measurement.measurements import FreshTiming, Gate, Measurement, Part, Row
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.task import Arrays, Interval, Statistics, Task

LEARNT = 0.25
"""A dense network has learnt next to nothing if its metric covers less than this fraction of the gap between the baseline and the best value."""
DROP, METRIC = ACCURACY_GATES = ("accuracy drop", "accuracy")
"""Names of the gates that are decided on the test images."""


class Shown(NamedTuple):
    """An engine's accuracy on a set of images, compared with the dense engine.

    Attributes:
        metric: The figure that is judged.
        drop: How much the metric falls from the dense engine to this one on the same images; None if there is no reference.
        reached: The metric of this engine.
        where: Which images, in a few words.
        doubt: Why the dense engine is no useful reference; empty if it is one.
    """

    metric: Metric
    drop: Interval | None
    reached: Interval
    where: str
    doubt: str = ""

    @classmethod
    def on_test(cls, task: Task, dense: Statistics | None, engine: Statistics, doubt: str) -> "Shown":
        """Return the accuracy on the test images; `dense` is None if there is no reference."""
        drop = None if dense is None else task.interval(dense, engine)
        return cls(task.metric, drop, task.bounds(engine), "on the test images", doubt)

    @classmethod
    def on_validation(cls, task: Task, dense: Statistics | None, engine: Statistics, test_images: int) -> "Shown":
        """Return a forecast of the test result from the validation images; engines are chosen by it.

        Args:
            task: Computes metric and intervals.
            dense: Statistics of the dense engine on the validation images; None if there is no reference.
            engine: Statistics of the engine on the same images.
            test_images: Number of test images.
        """
        where = f"on the validation images; expected of {test_images} test images"
        drop = None if dense is None else task.interval(dense, engine, test_images)
        return cls(task.metric, drop, task.bounds(engine, test_images), where)


def choose_precision(rows: Mapping[str, Row], gates: Mapping[Precision, tuple[Gate, ...]], profile: HardwareProfile) -> tuple[Precision, str]:
    """Return the precision to ship, and why.

    If latency was measured, that is the fastest precision that meets all gates other than latency. If it was only estimated, it is the
    profile's own: an estimate cannot prove that another one is faster.

    Args:
        rows: Result rows by precision.
        gates: Gates by precision, judged on the validation images; the latency gate comes first.
        profile: Names the precision that the widths were chosen for.
    """
    own, percentile = profile.target.precision, profile.budget.percentile
    times = {precision: latency.at(percentile) for precision in gates if (latency := rows[precision].latency) is not None}
    if rows[own].latency.source == "estimated":  # type: ignore[union-attr]  # every candidate has one
        unproven = " or ".join(precision for precision in profile.target.precisions if precision != own)
        return own, f"{own}, the profile's own; nothing was measured here, so it is not proven faster than {unproven or 'another one'}"
    accurate = [precision for precision in gates if all(gate.passed for gate in gates[precision][1:])]
    if not accurate:
        return own, f"{own}, the profile's own; no precision meets all gates other than latency"
    fastest = min(accurate, key=lambda precision: times[precision])
    others = "; ".join(
        f"{precision} takes {times[precision] / times[fastest]:.2f} times as long" + ("" if precision in accurate else " and misses a gate")
        for precision in times
        if precision != fastest
    )
    return fastest, f"{fastest} is the fastest engine that meets all gates other than latency" + (f": {others}" if others else ", and the only one built")


class Chosen(NamedTuple):
    """The precision of the engine that ships, the reason, and its gates."""

    precision: Precision
    reason: str
    gates: tuple[Gate, ...]


def choose_engine(
    task: Task,
    dense: tuple[Row, Statistics | None],
    candidates: Mapping[Precision, tuple[Engine, Row, Statistics]],
    profile: HardwareProfile,
    test_images: int,
    floats: tuple[int, int] = (0, 0),
    points: Mapping[Precision, tuple[AtPoint, ...]] = {},
) -> Chosen:
    """Return the engine to ship, by the latencies and the validation accuracies of all candidates.

    Args:
        task: Judges the outputs.
        dense: Row of the dense engine, and its statistics on the validation images; these are None if there is no reference.
        candidates: By precision, the engine, its row and its statistics.
        profile: The limits.
        test_images: Number of test images that will judge it.
        floats: `kept_float` and `most_float` of `gates_of`.
        points: By precision, the engine at each of the profile's points.
    """
    reference, seen = dense
    gates = {
        precision: (
            *gates_of(reference, row, Shown.on_validation(task, seen, noted, test_images), engine, profile, *floats),
            *gates_at(points.get(precision, ()), profile),
        )
        for precision, (engine, row, noted) in candidates.items()
    }
    shipped, reason = choose_precision({precision: row for precision, (_, row, _) in candidates.items()}, gates, profile)
    return Chosen(shipped, reason, gates[shipped])


def gates_of(dense: Row, candidate: Row, shown: Shown, engine: Engine, profile: HardwareProfile, kept_float: int = 0, most_float: int = 0) -> tuple[Gate, ...]:
    """Return a gate for every limit of the profile.

    Args:
        dense: Row of the dense network.
        candidate: Row of the engine.
        shown: Accuracy of the engine.
        engine: The engine itself, for its number of float convolutions.
        profile: The limits.
        kept_float: Convolutions that the recipe or the search keeps in float; the engine must have at least these.
        most_float: The same plus the convolutions that have no INT8 form; the engine may have no more.
    """
    assert dense.latency is not None and candidate.latency is not None
    latency = forecast_latency(dense.latency, candidate.latency, profile.budget, dense.precision)
    others = other_gates(profile.budget, candidate.size_bytes, tail_of(candidate.latency), candidate.footprint)
    return (latency, *accuracy_gates(shown, profile.gates), *others, *float_gates(engine, kept_float, most_float))


def gates_at(points: Iterable[AtPoint], profile: HardwareProfile) -> tuple[Gate, ...]:
    """Return a gate for every limit of the profile's points, by the timing that was made at each."""
    asked, found = profile.at_points(), list[Gate]()
    for at in points:
        budget = asked[at.point].budget
        latency = forecast_latency(at.dense, at.engine, budget, profile.target.reference)
        found += named_at((latency, *other_gates(budget, 0, tail_of(at.engine), at.footprint)), at.point)  # no point limits the size
    return tuple(found)


def float_gates(engine: Engine, kept_float: int, most_float: int) -> tuple[Gate, ...]:
    """Return the gate on the float convolutions of an INT8 engine, if its runtime counts them; the numbers are those of `gates_of`."""
    if engine.precision != "int8" or "float_convolutions" not in engine.coverage:
        return ()
    floats, limit = engine.coverage["float_convolutions"], max(kept_float, most_float, 1)
    note = f"{kept_float} must stay float, by the recipe or the search" if kept_float else "the first may stay float"
    if most_float > kept_float:
        note = f"{most_float - kept_float} have no INT8 form{f'; {note}' if kept_float else ''}"
    return (Gate(name="float convolutions", limit=limit, found=floats, unit="kernels", verdict=verdict_of(kept_float <= floats <= limit), note=note),)


def accuracy_gates(shown: Shown, limits: Gates) -> tuple[Gate, ...]:
    """Return the gates on accuracy. The upper end of the drop's interval must meet its limit, and the worse end of the metric's interval its own.

    If the dense network learnt next to nothing, the drop means nothing: its gate is undecided, unless `max_drop` is 1 and the metric a ratio, so that any
    drop is allowed.
    """
    metric, gates = shown.metric, list[Gate]()
    if limits.max_drop is not None:
        assert shown.drop is not None, "a recipe without a reference and a limit on the drop are refused together"
        drop, _, most = shown.drop
        verdict = verdict_of(most <= limits.max_drop)
        note = f"{drop:+.4f} {shown.where}"
        if shown.doubt:
            any_drop = metric.unit == "%" and limits.max_drop >= 1
            verdict = "undecided" if verdict == "met" and not any_drop else verdict
            note = f"{note}; {shown.doubt}"
        unit = f"{metric.label} (upper end of the 95 % interval)"
        gates.append(Gate(name=DROP, limit=limits.max_drop, found=most, unit=unit, verdict=verdict, note=note))
    if limits.min_metric is not None:
        found, low, high = shown.reached
        worst, bound = (low, "lower") if metric.direction == "higher" else (high, "upper")
        verdict = verdict_of(metric.merit(worst) >= metric.merit(limits.min_metric))
        unit = f"{metric.label} ({bound} end of the 95 % interval)"
        gates.append(Gate(name=METRIC, limit=limits.min_metric, found=worst, unit=unit, verdict=verdict, note=f"{found:.4f} {shown.where}"))
    return tuple(gates)


def doubt_about(task: Task, value: float, targets: Arrays, part: Part) -> str:
    """Return a warning if the dense network learnt next to nothing and so is no useful reference; else an empty text.

    Args:
        task: Has the metric and the baseline.
        value: The network's metric on one part of the data.
        targets: Targets of that part.
        part: Name of that part.
    """
    metric, (nothing, how) = task.metric, task.baseline(targets)
    if metric.merit(value) >= metric.merit(nothing + LEARNT * (metric.best - nothing)):
        return ""
    known = f"{how} gives {metric.written(nothing)}"
    return f"the dense network's {part} {metric.label} is {metric.written(value)}, and {known}: train longer, or check the data"


def fails(gate: Gate, allow_undecided: bool) -> bool:
    """Return whether a gate ends a run with an error."""
    return gate.verdict == "missed" or (gate.verdict == "undecided" and not allow_undecided)


def with_fresh(measurement: Measurement, timing: FreshTiming, profile: HardwareProfile, points: Sequence[FreshTiming] = ()) -> Measurement:
    """Return the measurement with what the fresh timings replace: the budget's gates, and the figures of the shipped and the dense engine.

    Args:
        measurement: By which the engine was chosen.
        timing: The fresh timing of the engine.
        profile: The limits.
        points: The fresh timings at the profile's points, in their order.
    """
    fresh = timing.fresh

    def timed_again(row: Row) -> Row:
        if row.shipped:
            return row.model_copy(update={"latency": fresh.engine, "footprint": timing.footprint or row.footprint})
        return row.model_copy(update={"latency": fresh.reference}) if row.network == "dense" and fresh.reference is not None else row

    others = judge_others(fresh, timing.footprint, measurement.shipped_row.size_bytes, profile.budget)
    fresh_gates = [judge_latency(fresh, profile.budget, profile.target.reference), *others]
    timed_points = list[AtPoint]()
    for at, again, (label, point) in zip(measurement.points, points, profile.at_points().items(), strict=True):
        fresh_gates += judge_point(again.fresh, again.footprint, point.budget, profile.target.reference, label)
        figures = {"dense": again.fresh.reference, "engine": again.fresh.engine, "footprint": again.footprint}
        timed_points.append(at.model_copy(update=figures))
    judged = {gate.name: gate for gate in fresh_gates}
    return measurement.model_copy(
        update={
            "rows": tuple(timed_again(row) for row in measurement.rows),
            "gates": tuple(judged.get(gate.name, gate) for gate in measurement.gates),
            "points": tuple(timed_points),
            "contention": fresh.contention,
            "conditions": fresh.conditions[-1] if fresh.conditions else measurement.conditions,
        }
    )
