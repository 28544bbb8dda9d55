"""Gates of a profile's points: what they are called, which precision they let ship, and how fresh timings decide them."""

from pathlib import Path

import pytest
from tiny_footprint import a_footprint
from tiny_report import a_manifest

from bonsai.profiles.budget import Budget
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.errors import VerificationError
from bonsai.stages.measurement.budget_gates import is_of_budget, judge_point
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Fresh, FreshTiming, Gate, Measurement
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.measurement.verdicts import choose_precision, gates_at, with_fresh
from bonsai.stages.reporting.chapter import write_chapter
from bonsai.stages.reporting.evidence import Evidence

POINTS = (
    {"batch": 8, "budget": {"latency": 0.5, "memory_mb": 20}},
    {"threads": 2, "budget": {"latency_ms": 3, "percentile": 90, "p99_ms": 5}},
)


def profile() -> HardwareProfile:
    return load_profile("local-cpu", {"points": [dict(point) for point in POINTS]})


def latency(ms: float) -> Latency:
    return Latency(source="measured", clock="wall", p50=ms, p90=ms * 1.2, p95=ms * 1.5, p99=ms * 2, n=2000)


def at(point: str, dense_ms: float, engine_ms: float, footprint: Footprint | None = None) -> AtPoint:
    return AtPoint(point=point, batch=1, threads=1, dense=latency(dense_ms), engine=latency(engine_ms), footprint=footprint)


def fresh(ratio: float, engine_ms: float, *, width: float = 1.02, tail: Interval | None = None) -> Fresh:
    interval = Interval(found=ratio, low=ratio / width, high=ratio * width, processes=3, spread=0.01)
    return Fresh(percentile=50, engine=latency(engine_ms), reference=latency(8), processes=(), interval=interval, contention=1, tail=tail)


def test_every_limit_of_a_point_has_a_gate_with_its_name() -> None:
    found = gates_at([at("batch 8", 8, 3, a_footprint(memory_mb=25)), at("2 threads", 4, 2)], profile())
    assert {gate.name: (gate.found, gate.limit, gate.verdict) for gate in found} == {
        "latency at batch 8": (3 / 8, 0.5, "met"),
        "memory at batch 8": (25, 20, "missed"),
        "latency at 2 threads": (2.4, 3, "met"),
        "p99 at 2 threads": (4, 5, "met"),
    }
    assert found[2].unit == "ms p90"
    assert all(map(is_of_budget, found))


def test_a_gate_that_is_not_of_a_budget_stays_one() -> None:
    named = [Gate(name=name, limit=1, found=1, unit="", verdict="met") for name in ("accuracy drop", "accuracy", "float convolutions")]
    assert not any(map(is_of_budget, named))


def test_a_precision_that_misses_a_point_does_not_ship() -> None:
    """INT8 is the fastest at the target, but not at batch 8."""
    manifest = a_manifest()
    rows = {precision: manifest.metrics[1].model_copy(update={"precision": precision, "latency": latency(ms)}) for precision, ms in (("fp32", 2), ("int8", 1))}
    main = Gate(name="latency", limit=1, found=0.5, unit="", verdict="met")
    met, missed = (gates_at([at("batch 8", 8, ms, a_footprint()), at("2 threads", 4, 2)], profile()) for ms in (3, 5))
    assert choose_precision(rows, {"fp32": (main, *met), "int8": (main, *met)}, profile())[0] == "int8"
    shipped, reason = choose_precision(rows, {"fp32": (main, *met), "int8": (main, *missed)}, profile())
    assert (shipped, reason.endswith("int8 takes 0.50 times as long and misses a gate")) == ("fp32", True)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.45, "met"), (0.495, "undecided"), (0.6, "missed")])
def test_a_fresh_timing_at_the_point_decides(ratio: float, verdict: str) -> None:
    memory = Interval(found=12, low=11, high=13, processes=3, spread=0.01)
    found = judge_point(fresh(ratio, 4), a_footprint(memory=memory), Budget(latency=0.5, memory_mb=20), "fp32", "batch 8")
    assert [(gate.name, gate.verdict) for gate in found] == [("latency at batch 8", verdict), ("memory at batch 8", "met")]
    assert (found[0].low, found[0].high) == (ratio / 1.02, ratio * 1.02)


def test_a_verdict_replaces_gates_and_figures_of_every_point() -> None:
    manifest, asked = a_manifest(), profile()
    points = (at("batch 8", 8, 3, a_footprint()), at("2 threads", 4, 2))
    measured = Measurement(
        folder=Path(),
        rows=manifest.metrics,
        gates=(*manifest.gates, *gates_at(points, asked)),
        shipped="int8",
        reason="",
        kernels=(),
        dense_kernels=(),
        contention=1,
        points=points,
    )

    def timing(found: Fresh, footprint: Footprint | None = None) -> FreshTiming:
        return FreshTiming(folder=Path(), fresh=found, repetition=1, footprint=footprint)

    tail = Interval(found=6, low=5.5, high=6.5, processes=3, spread=0.01)
    again = (timing(fresh(0.6, 4.8), a_footprint()), timing(fresh(2.0, 2.2, tail=tail)))
    judged = with_fresh(measured, timing(fresh(0.2, 0.4)), asked, again)
    assert [gate.name for gate in judged.gates] == [gate.name for gate in measured.gates]
    verdicts = {gate.name: (gate.found, gate.verdict) for gate in judged.gates}
    assert verdicts["latency at batch 8"] == (0.6, "missed")
    assert verdicts["latency at 2 threads"] == (2.0, "met")
    assert verdicts["p99 at 2 threads"] == (6, "missed")
    assert [(one.point, one.dense.p50, one.engine.p50) for one in judged.points] == [("batch 8", 8, 4.8), ("2 threads", 8, 2.2)]
    with pytest.raises(ValueError, match="shorter"):
        with_fresh(measured, timing(fresh(0.2, 0.4)), asked, again[:1])


def test_the_report_has_a_table_of_points_with_the_target_first() -> None:
    chapter = write_chapter(Evidence(a_manifest(points=POINTS)), "a")
    (table,) = (table for part in chapter.parts for table in part.tables if table.headers[0] == "point")
    assert table.headers == ("point", "batch", "threads", "dense ms", "engine ms", "of dense", "judged", "95 % interval", "limit", "unit", "verdict")
    assert [row[:6] for row in table.rows] == [
        ("target", "1", "1", "2.000", "0.500", "25.00 %"),
        ("batch 8", "8", "1", "8.000", "2.667", "33.33 %"),
        ("2 threads", "1", "2", "1.100", "0.367", "33.33 %"),
    ]
    assert table.rows[1][6:] == ("0.3333", "0.3267 to 0.34", "0.5", "of dense FP32 p50", "met")
    assert table.strong == ()
    missed = write_chapter(Evidence(a_manifest(points=({"batch": 8, "budget": {"latency": 0.2}},))), "a")
    assert missed.outcome == "missed"
    assert missed.headline.startswith("MISSES latency at batch 8: ")
    assert missed.basis.count("; also at batch 8. ") == 1


def test_a_manifest_whose_points_are_not_its_profiles_makes_no_report() -> None:
    whole = a_manifest(points=POINTS)
    for changes in ({"points": whole.points[:1]}, {"gates": whole.gates[:-1]}, {"points": (whole.points[0].model_copy(update={"engine": latency(0)}),) * 2}):
        with pytest.raises(VerificationError, match=r"its points are not those|has no verdict on its latency|a latency is not above 0"):
            Evidence(whole.model_copy(update=changes))
