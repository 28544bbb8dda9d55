"""Which precision is shipped."""

import re

import numpy as np
import pytest

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Gates, Precision
from bonsai.stages.measurement.budget_gates import verdict_of, verdict_within
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Accuracy, Gate, Row
from bonsai.stages.measurement.verdicts import Shown, accuracy_gates, choose_precision, doubt_about
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.task import Statistics


def row(precision: Precision, ms: float, *, source: str = "measured") -> Row:
    accuracy = Accuracy(top1=0.9, low=0.88, high=0.92, n=500, measured_by="engine")
    latency = Latency(source=source, clock="wall", p50=ms)
    return Row(network="pruned", precision=precision, accuracy=accuracy, latency=latency, size_bytes=1, parameters=1, macs=1)


def gates(*, latency: bool = True, accuracy: bool = True) -> tuple[Gate, ...]:
    return (
        Gate(name="latency", limit=1, found=1, unit="ms", verdict=verdict_of(latency)),
        Gate(name="accuracy drop", limit=1, found=1, unit="top-1", verdict=verdict_of(accuracy)),
    )


@pytest.mark.parametrize(
    ("times", "inaccurate", "shipped", "reason"),
    [
        ({"fp32": 3, "fp16": 2, "int8": 1}, (), "int8", "int8 is the fastest .*: fp32 takes 3.00 times as long; fp16 takes 2.00 times as long"),
        ({"fp32": 3, "fp16": 1, "int8": 1.2}, (), "fp16", "fp16 is the fastest .*; int8 takes 1.20 times as long"),
        ({"fp32": 3, "fp16": 2, "int8": 1}, ("int8",), "fp16", "int8 takes 0.50 times as long and misses a gate"),
        ({"fp32": 3, "fp16": 2, "int8": 1}, ("fp32", "fp16", "int8"), "int8", "no precision meets all gates other than latency"),
        ({"int8": 1}, (), "int8", "the only one built"),
    ],
)
def test_the_fastest_accurate_precision_is_shipped_and_the_reason_given(
    times: dict[Precision, float], inaccurate: tuple[str, ...], shipped: str, reason: str
) -> None:
    profile = load_profile("a10")
    rows = {precision: row(precision, ms) for precision, ms in times.items()}
    judged = {precision: gates(accuracy=precision not in inaccurate) for precision in times}
    found, why = choose_precision(rows, judged, profile)
    assert found == shipped
    assert re.search(reason, why)


def test_a_missed_latency_does_not_make_a_slower_precision_ship() -> None:
    rows = {"fp32": row("fp32", 3), "int8": row("int8", 2)}
    assert choose_precision(rows, {"fp32": gates(latency=False), "int8": gates(latency=False)}, load_profile("a10"))[0] == "int8"


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.9, 1.0, "met"), (0.99, 1.01, "undecided"), (1.0, 1.1, "undecided"), (1.01, 1.1, "missed")])
def test_a_verdict_needs_the_whole_interval_on_one_side(low: float, high: float, verdict: str) -> None:
    assert verdict_within(low, high, 1.0) == verdict


def test_an_estimate_proves_no_precision_faster() -> None:
    profile = load_profile("rtx-4090")
    rows = {"fp32": row("fp32", 1, source="estimated"), "fp16": row("fp16", 2, source="estimated")}
    found, why = choose_precision(rows, {"fp32": gates(), "fp16": gates()}, profile)
    assert found == "fp16"
    assert why.endswith("nothing was measured here, so it is not proven faster than fp32 or int8")


@pytest.mark.parametrize(("precision", "candidates"), [("fp32", ("fp32",)), ("fp16", ("fp32", "fp16")), ("int8", ("fp32", "fp16", "int8"))])
def test_the_wider_precisions_are_built_beside_the_profiles_own(precision: Precision, candidates: tuple[str, ...]) -> None:
    assert load_profile("a10").target.at(precision).candidates == candidates


def test_the_reference_is_fp16_where_the_runtime_builds_no_fp32() -> None:
    assert load_profile("t4").target.reference == "fp16"
    assert load_profile("a10").target.reference == "fp32"


def hits(right: int, of: int) -> Statistics:
    return {"label": np.zeros(of, np.int64), "answer": (np.arange(of) >= right).astype(np.int64)}


def test_the_drop_is_judged_by_its_upper_end_and_the_accuracy_by_its_lower_end() -> None:
    shown = Shown.on_test(CLASSIFICATION, hits(360, 360), hits(357, 360), "")
    drop, metric = accuracy_gates(shown, Gates(max_drop=0.02, min_metric=0.99))
    assert (drop.name, drop.verdict, drop.note) == ("accuracy drop", "missed", "+0.0083 on the test images")
    assert drop.found == pytest.approx(0.0242, abs=2e-4)
    assert (metric.name, metric.verdict, metric.note) == ("accuracy", "missed", "0.9917 on the test images")
    assert metric.unit == "top-1 (lower end of the 95 % interval)"
    assert metric.found == pytest.approx(0.9758, abs=2e-4)
    assert [gate.verdict for gate in accuracy_gates(shown, Gates(max_drop=0.025, min_metric=0.975))] == ["met", "met"]
    assert [gate.name for gate in accuracy_gates(shown, Gates())] == ["accuracy drop"]


def test_no_drop_from_a_reference_that_learnt_nothing_is_met() -> None:
    """The dense network at 10.9 % of ten classes, the engine at 72 %."""
    doubt = doubt_about(CLASSIFICATION, 0.109, np.arange(1000) % 10, "test")
    assert doubt == "the dense network's test top-1 is 10.90%, and always naming the largest class gives 10.00%: train longer, or check the data"
    shown = Shown.on_test(CLASSIFICATION, hits(109, 1000), hits(720, 1000), doubt)
    (gate,) = accuracy_gates(shown, Gates(max_drop=0.02))
    assert not gate.passed
    assert gate.verdict == "undecided"
    assert gate.sentence.endswith(f"on the test images; {doubt})")
    assert accuracy_gates(shown, Gates(max_drop=1))[0].verdict == "met"  # nothing was asked


@pytest.mark.parametrize(("top1", "largest", "told"), [(0.32, 0.1, True), (0.33, 0.1, False), (0.62, 0.5, True), (0.63, 0.5, False), (0.95, 0.95, True)])
def test_a_network_learnt_something_from_a_quarter_of_the_way_on(top1: float, largest: float, told: bool) -> None:
    labels = np.array([0] * round(100 * largest) + [1 + i % 9 for i in range(round(100 * (1 - largest)))])
    assert bool(doubt_about(CLASSIFICATION, top1, labels, "validation")) is told


def test_what_the_validation_part_promises_is_scaled_to_the_test_part() -> None:
    shown = Shown.on_validation(CLASSIFICATION, hits(99, 100), hits(98, 100), 10_000)
    drop, metric = accuracy_gates(shown, Gates(max_drop=0.0125, min_metric=0.977))
    assert (drop.verdict, metric.verdict) == ("met", "met")
    assert drop.note == "+0.0100 on the validation images; expected of 10000 test images"


def test_without_a_limit_on_the_drop_there_is_no_such_gate_and_no_reference_is_needed() -> None:
    for shown in (Shown.on_test(CLASSIFICATION, None, hits(357, 360), ""), Shown.on_validation(CLASSIFICATION, None, hits(357, 360), 360)):
        assert shown.drop is None
        (metric,) = accuracy_gates(shown, Gates(max_drop=None, min_metric=0.975))
        assert (metric.name, metric.verdict) == ("accuracy", "met")
    with_reference = Shown.on_test(CLASSIFICATION, hits(360, 360), hits(357, 360), "")
    assert accuracy_gates(with_reference, Gates(max_drop=None)) == ()
