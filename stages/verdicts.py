"""Which precision is shipped, and whether the engine meets its gates."""

from collections.abc import Mapping

from profiles.schema import HardwareProfile, Precision
from stages.artifacts import Engine
from stages.measurements import Gate, Row, Verdict


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


def judge(
    dense: Row, candidate: Row, drop: tuple[float, float, float], engine: Engine, profile: HardwareProfile, kept_float: int = 0, most_float: int = 0
) -> tuple[Gate, ...]:
    """Return every limit of the profile with what was found; of the accuracy's drop the upper end of its interval.

    Args:
        dense: The dense network's row.
        candidate: The engine's.
        drop: Of top-1, with its interval.
        engine: What was built.
        profile: The limits.
        kept_float: Convolutions that the recipe or the search keeps in float, which must be there.
        most_float: These and those that no quantiser takes.
    """
    assert dense.latency is not None and candidate.latency is not None
    note = "" if candidate.latency.source == "measured" else "estimated"
    percentile = profile.budget.percentile
    found, limit, unit = candidate.latency.at(percentile), float(profile.budget.latency_ms or 0), f"ms p{percentile}"
    if profile.budget.latency is not None:
        found, limit, unit = found / dense.latency.at(percentile), profile.budget.latency, f"of dense {dense.precision.upper()} p{percentile}"
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
        limit = max(kept_float, most_float, 1)
        note = f"{kept_float} are left in float on purpose, no fewer" if kept_float else "the first may stay float"
        if most_float > kept_float:
            note = f"{most_float - kept_float} have no INT8 form{f'; {note}' if kept_float else ''}"
        gates.append(Gate(name="float convolutions", limit=limit, found=floats, unit="kernels", verdict=verdict_of(kept_float <= floats <= limit), note=note))
    return tuple(gates)


def verdict_of(passed: bool) -> Verdict:
    """Return the verdict on a figure that has no interval of its own."""
    return "met" if passed else "missed"
