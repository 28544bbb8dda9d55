"""The table of a profile's points: both engines at every batch size and number of threads that has a budget."""

from collections.abc import Sequence

from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.measurement.budget_gates import AT, LATENCY
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import VERDICTS, Gate
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.reporting.content import Table

TARGET = "target"
"""Name of the target's own row."""


def points_tables(profile: HardwareProfile, dense: Latency, engine: Latency, points: Sequence[AtPoint], gates: Sequence[Gate]) -> tuple[Table, ...]:
    """Return the table of the points, the target first; nothing where the profile has none.

    Args:
        profile: The limits.
        dense: Latency of the dense engine at the target's batch and threads.
        engine: Latency of the shipped engine there.
        points: Both engines at each point.
        gates: All gates of the engine.
    """
    if not points:
        return ()
    judged, at_points = {gate.name: gate for gate in gates}, profile.at_points()
    own = _row(TARGET, profile, dense, engine, judged[LATENCY])
    others = [_row(at.point, at_points[at.point], at.dense, at.engine, judged[f"{LATENCY}{AT}{at.point}"]) for at in points]
    gated = [judged[LATENCY], *(judged[f"{LATENCY}{AT}{at.point}"] for at in points)]
    return (
        Table(
            caption="One engine at every point of the profile; latency of an inference, that is of the whole batch",
            headers=("point", "batch", "threads", "dense ms", "engine ms", "of dense", "judged", "95 % interval", "limit", "unit", "verdict"),
            rows=(own, *others),
            strong=tuple(place for place, gate in enumerate(gated) if not gate.passed),
        ),
    )


def _row(name: str, profile: HardwareProfile, dense: Latency, engine: Latency, gate: Gate) -> tuple[str, ...]:
    dense_ms, engine_ms = (latency.at(profile.budget.percentile) for latency in (dense, engine))
    times = (f"{dense_ms:.3f}", f"{engine_ms:.3f}", f"{engine_ms / dense_ms:.2%}".replace("%", " %"))
    figures = (f"{gate.found:.4g}", gate.interval or "-", f"{gate.limit:.4g}", gate.unit, VERDICTS[gate.verdict])
    return (name, str(profile.target.batch), str(profile.target.threads), *times, *figures)
