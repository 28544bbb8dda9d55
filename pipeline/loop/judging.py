"""The verdict on a network in hand: gates, rows and notes, from scores and times."""

from collections.abc import Sequence

from bonsai.pipeline.loop.building import Built
from bonsai.pipeline.loop.evaluating import Found
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.delivery.deployed import ScoredRow
from bonsai.stages.measurement.budget_gates import judge_latency, judge_others, judge_point
from bonsai.stages.measurement.condition_text import describe_conditions
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Fresh, FreshTiming, Gate
from bonsai.stages.measurement.scores import NO_INTERVAL, Scores, drop_gate, score_gate
from bonsai.stages.measurement.verdicts import float_gates
from bonsai.stages.quantization.keeping import FloatConvolutions, count_float_convolutions


def gates_of(found: Found, shipped: Built, timed: FreshTiming, profile: HardwareProfile, *, higher_is_better: bool, score: str) -> tuple[Gate, ...]:
    """Return a gate for every limit of the profile; latency comes first."""
    gates, limits = [judge_latency(timed.fresh, profile.budget, profile.target.reference)], profile.gates
    if limits.max_drop is not None and found.dense is not None:
        gates.append(drop_gate(found.dense, found.engine, limit=limits.max_drop, higher_is_better=higher_is_better, label=score))
    if limits.min_metric is not None:
        gates.append(score_gate(found.engine, limit=limits.min_metric, higher_is_better=higher_is_better, label=score))
    meant, hand = FloatConvolutions(0, 0), shipped.hand
    if hand.quantizers is not None:
        meant = count_float_convolutions(hand.network, hand.quantizers, shipped.engine.image_shape)
    return (*gates, *judge_others(timed.fresh, timed.footprint, _size(shipped), profile.budget), *float_gates(shipped.engine, *meant))


def gates_at_points(timed: Sequence[FreshTiming], profile: HardwareProfile) -> tuple[Gate, ...]:
    """Return a gate for every limit of the profile's points, by the fresh timing that was made at each, in their order."""
    found = list[Gate]()
    for again, (label, point) in zip(timed, profile.at_points().items(), strict=True):
        found += judge_point(again.fresh, again.footprint, point.budget, profile.target.reference, label)
    return tuple(found)


def rows_of(found: Found, shipped: Built, dense: Built | None, fresh: Fresh) -> tuple[ScoredRow, ...]:
    """Return the figures of the dense engine, where there is one, of the torch network and of the shipped engine."""
    rows = [_row("torch", found.torch, shipped, None), _row("shipped engine", found.engine, shipped, fresh.engine)]
    if dense is not None and found.dense is not None:
        rows.insert(0, _row("dense engine", found.dense, dense, fresh.reference))
    return tuple(rows)


def notes_of(found: Found, timed: FreshTiming) -> tuple[str, ...]:
    """Return how score and latency were measured, and what the engine costs beside."""
    fresh, condition = timed.fresh, describe_conditions(timed.fresh.conditions)
    values = found.engine.values
    kind = f"{len(values)} values, one for each sample, in the same order for each network" if values is not None else NO_INTERVAL
    clock = f"p50 on the clock {fresh.engine.clock}, p99 by the wall, n = {fresh.engine.n}"
    beside = [f"Beside latency: {timed.footprint.sentence}."] if timed.footprint is not None else []
    return (f"Score: {kind}.", f"Latency: {clock}; {fresh.sentence}.", *beside, *([f"The device meanwhile: {condition}."] if condition else []))


def _row(what: str, scores: Scores, built: Built, latency: Latency | None) -> ScoredRow:
    interval, is_engine = scores.interval(), what != "torch"
    facts = {"what": what, "precision": built.engine.precision, "score": scores.mean, "latency": latency}
    ends = {} if interval is None else {"low": interval.low, "high": interval.high}
    samples = None if scores.values is None else len(scores.values)
    size = _size(built) if is_engine else None
    return ScoredRow.model_validate({**facts, **ends, "samples": samples, "size_bytes": size, "parameters": built.engine.parameters, "macs": built.engine.macs})


def _size(built: Built) -> int:
    return (built.engine.folder / built.engine.file).stat().st_size
