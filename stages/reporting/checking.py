"""Whether what a manifest tells goes together: a report is refused in one message before any of it is written."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from bonsai.profiles.errors import describe, shorten
from bonsai.profiles.located_yaml import nonfinite
from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.delivery.sums import CHANGED
from bonsai.stages.errors import VerificationError
from bonsai.stages.measurement.budget_gates import AT, LATENCY
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Row
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.tasks.metric import Metric

LARGEST = 1e15
"""Largest number that is drawn."""


def read_decisions(manifest: PackageManifest) -> Decisions:
    """Return what a manifest tells of how its engine came about.

    Raises:
        VerificationError: Something that a report rests on is missing, or contradicts the rest.
    """
    try:
        decisions = Decisions.model_validate({**manifest.decisions, "recipe": manifest.model_dump_json(include={"recipe"})})
    except ValidationError as error:
        fault = error.errors()[0]
        given = f"decisions.{'.'.join(map(str, fault['loc']))} = {shorten(repr(fault['input']))}: {fault['msg']}"
        raise _refusal("its decisions are not whole", given) from error
    for problem, given in (*_of_rows(manifest), *_of_points(manifest), *_of_numbers(manifest), *_of_recipe(manifest), *_of_decisions(decisions)):
        raise _refusal(problem, given)
    return decisions


def _refusal(problem: str, given: str) -> VerificationError:
    return VerificationError(describe(f"{MANIFEST}: no report can be made of it: {problem}", given=given, allowed="what `bonsai run` wrote", fix=CHANGED))


def _of_rows(manifest: PackageManifest) -> Iterator[tuple[str, str]]:
    shipped, dense = [row for row in manifest.metrics if row.shipped], [row for row in manifest.metrics if row.network == "dense"]
    if len(shipped) != 1 or not dense:
        yield "the result table has no dense or no shipped engine, or several that were shipped", f"{len(dense)} dense, {len(shipped)} shipped"
    for row in (*shipped, *dense):
        if row.latency is None or row.size_bytes <= 0:
            yield "an engine has no latency or no size", row.label
    for row in manifest.metrics:
        if row.accuracy is None and row.network != "dense":
            yield "an engine or a network has no accuracy, which only an untrained dense network may lack", row.label
        yield from _of_row(row, manifest.metric)


def _of_times(name: str, latencies: Sequence[Latency]) -> Iterator[tuple[str, str]]:
    times = [ms for latency in latencies for ms in (latency.p50, latency.p90, latency.p95) if ms is not None]
    if any(ms <= 0 for ms in times):
        yield "a latency is not above 0", f"{name}: {times} ms"


def _of_row(row: Row, metric: Metric) -> Iterator[tuple[str, str]]:
    yield from _of_times(row.label, () if row.latency is None else (row.latency,))
    for accuracy in (row.accuracy, row.validation):
        if accuracy is not None and not (0 <= accuracy.low <= accuracy.value <= accuracy.high and accuracy.high <= (1 if metric.unit == "%" else LARGEST)):
            yield "an accuracy lies outside its interval, or the interval outside 0 to 1", f"{row.label}: {accuracy.value}, {accuracy.low} to {accuracy.high}"


def _of_points(manifest: PackageManifest) -> Iterator[tuple[str, str]]:
    measured, asked = [at.point for at in manifest.points], list(manifest.profile.at_points())
    if measured != asked:
        yield "its points are not those of its profile", f"{', '.join(measured) or 'none'}; the profile has {', '.join(asked) or 'none'}"
    gates = {gate.name for gate in manifest.gates}
    for name in (LATENCY, *(f"{LATENCY}{AT}{point}" for point in asked)) if asked else ():
        if name not in gates:
            yield "a point, or the target, has no verdict on its latency", name
    for at in manifest.points:
        yield from _of_times(at.point, (at.dense, at.engine))


def _of_numbers(manifest: PackageManifest) -> Iterator[tuple[str, str]]:
    told = manifest.model_dump(exclude={"recipe"})
    for path in nonfinite(told, largest=LARGEST):
        yield "a number is no finite one, or too large to draw", ".".join(path)


def _of_recipe(manifest: PackageManifest) -> Iterator[tuple[str, str]]:
    recipe = manifest.recipe
    prune = recipe.get("prune")
    schedule = prune.get("schedule") if isinstance(prune, dict) else None
    if not isinstance(recipe.get("name"), str) or not isinstance(schedule, dict) or not isinstance(schedule.get("soft"), bool):
        yield "its recipe lacks a name, or says not whether channels were masked first", "name, prune.schedule.soft"


def _of_decisions(decisions: Decisions) -> Iterator[tuple[str, str]]:
    trigger, dense = decisions.trigger, decisions.dense_widths
    if not len(trigger.epochs) == len(trigger.curve) == len(trigger.overlap):
        yield "the trigger's curves are not equally long", f"{len(trigger.epochs)} epochs, {len(trigger.curve)} of EPI, {len(trigger.overlap)} of overlap"
    if not dense or not dense.keys() == decisions.kept_widths.keys() == decisions.fit.widths.keys():
        yield "the groups of the dense, the asked and the kept widths are not the same", ", ".join(dense) or "no group"
    elif any(not width > 0 for widths in (dense, decisions.positions) for width in widths.values()):
        yield "a dense width, or a number of positions, is not above 0", str(dense | decisions.positions)
    elif any(not width >= 0 for widths in (decisions.kept_widths, decisions.fit.widths) for width in widths.values()):
        yield "a width is below 0", str(decisions.kept_widths)
    predicted = [ms for attempt in decisions.attempts for ms in (attempt.predicted_ms, *(found.predicted_ms for found in attempt.rounds))]
    if any(ms <= 0 for ms in (*predicted, *(operator.dense_ms for operator in decisions.forecast.operators))):
        yield "a predicted latency is not above 0", "decisions.attempts, decisions.forecast"
