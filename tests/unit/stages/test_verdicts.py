"""Which precision is shipped."""

import re

import pytest

from profiles.loader import load_profile
from profiles.schema import Precision
from stages.artifacts import Latency
from stages.measurements import Accuracy, Gate, Row
from stages.process_interval import Interval
from stages.verdicts import choose_precision, verdict_of, verdict_within


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
        ({"fp32": 3, "fp16": 2, "int8": 1}, ("fp32", "fp16", "int8"), "int8", "no precision meets the gates beside the latency's"),
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
    assert verdict_within(Interval(found=1, low=low, high=high, processes=3, spread=0.01), 1.0) == verdict


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
