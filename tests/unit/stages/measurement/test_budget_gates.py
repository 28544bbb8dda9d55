"""Every limit of a budget beside the latency's: met, missed, undecided, or untold."""

from collections.abc import Mapping

import numpy as np
import pytest
from tiny_footprint import a_footprint

from bonsai.profiles.budget import Budget
from bonsai.profiles.errors import ConfigError
from bonsai.stages.measurement.budget_gates import Figure, judge_others, other_gates, require_told, tail_of, untold_of
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Fresh, Gate
from bonsai.stages.measurement.tail import tail_interval

LATENCY = Latency(source="measured", clock="thread_cpu", p50=1.0, p90=1.5, p95=2.0, p99=4.0, n=2000)


def interval(low: float, high: float) -> Interval:
    return Interval(found=(low * high) ** 0.5, low=low, high=high, processes=3, spread=0.01)


def judged(tail: Figure | None = None, found: Footprint | None = None, **limits: float) -> Mapping[str, Gate]:
    return {gate.name: gate for gate in other_gates(Budget(latency=0.5, **limits), 500_000, tail or Figure(4.0), found or a_footprint())}


def test_a_budget_of_latency_alone_has_no_other_gate() -> None:
    assert judged() == {}


@pytest.mark.parametrize(
    ("key", "name", "found", "unit"),
    [
        ("p99_ms", "p99", 4.0, "ms p99, by the wall"),
        ("memory_mb", "memory", 12.0, "MB"),
        ("size_mb", "size", 0.5, "MB"),
        ("energy_mj", "energy", 5.0, "mJ an inference"),
    ],
)
def test_every_limit_has_a_gate(key: str, name: str, found: float, unit: str) -> None:
    assert [(gate.name, gate.found, gate.unit, gate.verdict) for gate in judged(**{key: found}).values()] == [(name, found, unit, "met")]
    assert judged(**{key: found * 0.99})[name].verdict == "missed"


@pytest.mark.parametrize(("limit", "verdict"), [(13.1, "met"), (12.5, "undecided"), (10.9, "missed")])
def test_memory_and_energy_and_p99_are_decided_by_their_intervals(limit: float, verdict: str) -> None:
    around = interval(11, 13)
    told = a_footprint(memory=around, energy_mj=12, energy=around)
    gates = judged(Figure(12, around), told, p99_ms=limit, memory_mb=limit, energy_mj=limit)
    assert {name: gate.verdict for name, gate in gates.items()} == dict.fromkeys(("p99", "memory", "energy"), verdict)
    assert all((gate.low, gate.high) == (11, 13) for gate in gates.values())
    assert gates["memory"].note == "95 % interval; 3 processes; added to the 60 MB of the process without the engine"


@pytest.mark.parametrize(("limit", "verdict"), [(1.9, "missed"), (2.1, "undecided"), (100, "undecided")])
def test_a_p99_of_too_few_runs_is_missed_by_its_p95_or_undecided(limit: float, verdict: str) -> None:
    few = tail_of(LATENCY.model_copy(update={"p99": None}))
    gate = judged(few, p99_ms=limit)["p99"]
    assert (gate.found, gate.verdict) == (2.0, verdict)
    assert "fewer than 1,000 runs" in gate.sentence


def test_a_fresh_timing_is_judged_by_the_interval_between_its_processes() -> None:
    fresh = Fresh(percentile=50, engine=LATENCY, reference=None, processes=(), interval=interval(0.9, 1.1), contention=1, tail=interval(3.5, 4.5))
    (gate,) = judge_others(fresh, None, 1, Budget(latency_ms=2, p99_ms=4))
    assert (gate.verdict, gate.low, gate.high) == ("undecided", 3.5, 4.5)
    (few,) = judge_others(fresh.model_copy(update={"tail": None}), None, 1, Budget(latency_ms=2, p99_ms=4))
    assert (few.verdict, few.low) == ("met", None)


def test_a_figure_that_the_device_does_not_tell_is_refused_with_the_reason() -> None:
    silent = a_footprint(energy_mj=None, meter="the machine has no RAPL counter", memory_mb=None, before_mb=None, peak_mb=None)
    both = Budget(latency=0.5, memory_mb=1, energy_mj=1)
    assert untold_of(both, silent) == {"memory_mb": "the device does not tell the memory of a process", "energy_mj": "the machine has no RAPL counter"}
    assert set(untold_of(both, None)) == {"memory_mb", "energy_mj"}
    assert untold_of(Budget(latency=0.5, size_mb=1, p99_ms=1), None) == {}
    with pytest.raises(ConfigError, match=r"budget\.energy_mj cannot be judged on a Pi\n +given: +the machine has no RAPL counter"):
        require_told(Budget(latency=0.5, energy_mj=1), silent, "a Pi")
    require_told(both, a_footprint(), "a Pi")


def test_a_footprint_says_its_figures_and_what_is_unknown() -> None:
    assert a_footprint().sentence == (
        "cold start 0.312 s (process and runtime 0.3, loading 0.01, first output 0.002); loaded again in the same process 0.005 s; "
        "peak memory 12 MB above the 60 MB of the process without the engine; energy 5 mJ an inference (RAPL, the whole CPU); alone in 3 new processes"
    )
    silent = a_footprint(processes=1, energy_mj=None, meter="no meter", memory_mb=None, before_mb=None, peak_mb=None)
    assert silent.sentence.endswith("memory unknown, since the device does not tell it; energy unknown: no meter; alone in 1 new process")
    assert silent.cells == ("-", "-", "0.31")
    assert set(silent.figures) == {"cold_start_s"}


def runs_of(count: int, rng: np.random.Generator, pace: float = 1.0) -> np.ndarray:
    return np.stack([np.full(count, 1e6), pace * rng.lognormal(0, 0.3, count) * 1e6])


def test_a_p99_needs_a_thousand_runs_of_several_processes() -> None:
    rng = np.random.default_rng(0)
    assert tail_interval([runs_of(2000, rng)], looks=1) is None
    assert tail_interval([runs_of(499, rng)] * 2, looks=1) is None
    assert tail_interval([runs_of(299, rng)] * 9, looks=1) is None
    found = tail_interval([runs_of(500, rng), runs_of(500, rng), runs_of(20, rng)], looks=1)
    assert found is not None
    assert found.processes == 2


def test_the_interval_of_a_p99_covers_the_true_one_and_is_by_the_wall() -> None:
    rng, truth = np.random.default_rng(1), np.exp(0.3 * 2.3263)
    covered = 0
    for _ in range(300):
        processes = [runs_of(667, rng, pace=float(np.exp(0.02 * rng.standard_normal()))) for _ in range(3)]
        found = tail_interval(processes, looks=1)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered >= 0.93 * 300
