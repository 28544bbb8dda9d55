"""Which precision is shipped, and whether the engine meets its gates."""

from collections.abc import Mapping

from profiles.schema import Budget, HardwareProfile, Precision
from stages.artifacts import Engine
from stages.measurements import Fresh, FreshTiming, Gate, Measurement, Row, Verdict
from stages.process_interval import Interval


def choose_precision(rows: Mapping[str, Row], gates: Mapping[Precision, tuple[Gate, ...]], profile: HardwareProfile) -> tuple[Precision, str]:
    """Return the precision to ship, and why.

    Measured: the fastest whose gates but the latency's are met. Estimated: the profile's own, since an estimate proves no precision faster.

    Args:
        rows: By precision.
        gates: By precision; the first is the latency's.
        profile: Names the precision that the widths were chosen for.
    """
    own, percentile = profile.target.precision, profile.budget.percentile
    times = {precision: latency.at(percentile) for precision in gates if (latency := rows[precision].latency) is not None}
    if rows[own].latency.source == "estimated":  # type: ignore[union-attr]  # every candidate has one
        unproven = " or ".join(precision for precision in profile.target.precisions if precision != own)
        return own, f"{own}, the profile's own; nothing was measured here, so it is not proven faster than {unproven or 'another one'}"
    accurate = [precision for precision in gates if all(gate.passed for gate in gates[precision][1:])]
    if not accurate:
        return own, f"{own}, the profile's own; no precision meets the gates beside the latency's"
    fastest = min(accurate, key=lambda precision: times[precision])
    others = "; ".join(
        f"{precision} takes {times[precision] / times[fastest]:.2f} times as long" + ("" if precision in accurate else " and misses a gate")
        for precision in times
        if precision != fastest
    )
    return fastest, f"{fastest} is the fastest that meets the gates beside the latency's" + (f": {others}" if others else ", and the only one built")


def judge(dense: Row, candidate: Row, drop: tuple[float, float, float], engine: Engine, profile: HardwareProfile, meant_float: int = 0) -> tuple[Gate, ...]:
    """Return every limit of the profile with what was found; of the accuracy's drop the upper end of its interval.

    Args:
        dense: The dense network's row.
        candidate: The engine's.
        drop: Of top-1, with its interval.
        engine: What was built.
        profile: The limits.
        meant_float: Convolutions that are in float on purpose.
    """
    assert dense.latency is not None and candidate.latency is not None
    note = "" if candidate.latency.source == "measured" else "estimated"
    found = candidate.latency.at(profile.budget.percentile)
    if profile.budget.latency is not None:
        found /= dense.latency.at(profile.budget.percentile)
    limit, unit = limit_of(profile.budget, dense.precision)
    most = profile.gates.max_accuracy_drop
    gates = [
        Gate(name="latency", limit=limit, found=found, unit=unit, verdict=verdict_of(found <= limit), note=note),
        Gate(
            name="accuracy drop",
            limit=most,
            found=drop[2],
            unit="top-1 at most (95 %)",
            verdict=verdict_of(drop[2] <= most),
            note=f"{drop[0]:+.4f} on the test images",
        ),
    ]
    if profile.gates.max_size_mb is not None:
        size = candidate.size_bytes / 1e6
        gates.append(Gate(name="size", limit=profile.gates.max_size_mb, found=size, unit="MB", verdict=verdict_of(size <= profile.gates.max_size_mb)))
    if engine.precision == "int8" and "float_convolutions" in engine.coverage:
        floats = engine.coverage["float_convolutions"]
        limit = max(meant_float, 1)
        note = f"{meant_float} are left in float on purpose, no fewer" if meant_float else "the first may stay float"
        gates.append(Gate(name="float convolutions", limit=limit, found=floats, unit="kernels", verdict=verdict_of(meant_float <= floats <= limit), note=note))
    return tuple(gates)


def verdict_of(passed: bool) -> Verdict:
    """Return the verdict on a figure that has no interval of its own."""
    return "met" if passed else "missed"


def judge_latency(fresh: Fresh, budget: Budget, reference: Precision) -> Gate:
    """Return the latency's gate by the interval of a fresh timing.

    Args:
        fresh: With the dense engine timed in turns where the budget is a fraction of it.
        budget: The limit.
        reference: Precision of that dense engine.
    """
    limit, unit = limit_of(budget, reference)
    interval = fresh.interval
    note = f"95 % interval; {interval.processes} processes"
    verdict = verdict_within(interval, limit)
    return Gate(name="latency", limit=limit, found=interval.found, unit=unit, verdict=verdict, note=note, low=interval.low, high=interval.high)


def limit_of(budget: Budget, reference: Precision) -> tuple[float, str]:
    """Return a budget's limit and its unit: milliseconds, or a fraction of the dense engine's."""
    if budget.latency is None:
        return float(budget.latency_ms or 0), f"ms p{budget.percentile}"
    return budget.latency, f"of dense {reference.upper()} p{budget.percentile}"


def verdict_within(interval: Interval, limit: float) -> Verdict:
    """Return *met* or *missed* where the whole interval lies on one side of the limit."""
    if interval.high <= limit:
        return "met"
    return "missed" if interval.low > limit else "undecided"


def fails(gate: Gate, allow_undecided: bool) -> bool:
    """Return whether a gate ends a run with an error."""
    return gate.verdict == "missed" or (gate.verdict == "undecided" and not allow_undecided)


def with_fresh(measurement: Measurement, timing: FreshTiming, profile: HardwareProfile) -> Measurement:
    """Return a measurement whose latency gate, and whose latencies of the shipped and of the dense engine, are those of the fresh timing."""
    fresh = timing.fresh
    found = {row.label: fresh.engine if row.shipped else fresh.reference for row in measurement.rows if row.shipped or row.network == "dense"}
    rows = tuple(row.model_copy(update={"latency": found[row.label]}) if found.get(row.label) else row for row in measurement.rows)
    latency = judge_latency(fresh, profile.budget, profile.target.reference)
    return measurement.model_copy(update={"rows": rows, "gates": (latency, *measurement.gates[1:]), "contention": fresh.contention})
