"""A verdict from several processes: sequences, set-aside processes and gates, with made-up samples in place of processes."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scripted_device import use

from bonsai.profiles.budget import Budget
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.timing_config import TimingConfig, VerdictConfig
from bonsai.stages.measurement.budget_gates import judge_latency
from bonsai.stages.measurement.fresh_timing import milliseconds_of, time_afresh
from bonsai.stages.measurement.measurements import Fresh
from bonsai.stages.measurement.samples import turn_count

TARGET = load_profile("local-cpu").target
ENGINE, DENSE = (EngineFile(file=Path(name), target=TARGET) for name in ("e", "d"))
Machine = Callable[[int], Mapping[str, np.ndarray]]
"""Samples of the process of this number."""


def machine(ratios: list[float], paces: list[float] | None = None) -> Machine:
    """Return a machine whose processes find these ratios, at these dense milliseconds."""

    def time_one(number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(number)
        pace = (paces or [1.0] * len(ratios))[number]
        dense, engine = (np.stack([pace * scale * 1e6 * rng.normal(1, 0.01, 500)] * 2).astype(np.int64) for scale in (1, ratios[number]))
        return {"engine": engine, "reference": dense}

    return time_one


class Processes:
    """A device that returns made-up samples, and keeps how it was asked."""

    def __init__(self, one: Callable[[], Mapping[str, np.ndarray]]) -> None:
        self.one = one
        self.asked: list[tuple[list[str], TimingProtocol]] = []

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        self.asked.append((list(engines), protocol))
        return Timing(dict(self.one()), turn_count(protocol.timing))


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fresh]:
    def run(on: Machine, **options: object) -> Fresh:
        count = iter(range(100))
        use(Processes(lambda: on(next(count))), monkeypatch)
        asked = {"percentile": 50, "relative": True, "limit": 0.3, "reference": DENSE, "timing": TimingConfig(runs=1500)}
        return time_afresh(tmp_path, ENGINE, image_shape=(1, 8, 8), **{**asked, **options})  # type: ignore[arg-type]

    return run


def test_three_processes_suffice_where_the_figure_is_far_from_its_limit(timed: Callable[..., Fresh]) -> None:
    found = timed(machine([0.25, 0.252, 0.249]))
    assert found.interval.processes == len(found.processes) == 3
    gate = judge_latency(found, Budget(latency=0.3), "fp32")
    assert (gate.verdict, gate.passed, gate.limit, gate.unit) == ("met", True, 0.3, "of dense FP32 p50")
    assert gate.low is not None
    assert gate.high is not None
    assert gate.low < gate.found < gate.high < 0.3
    assert judge_latency(found, Budget(latency=0.2), "fp32").verdict == "missed"


def test_processes_are_added_while_the_verdict_is_undecided_and_no_more_than_the_most(timed: Callable[..., Fresh]) -> None:
    close = [0.291, 0.296, 0.293, 0.294, 0.292, 0.293, 0.294, 0.293, 0.292]
    assert len(timed(machine(close)).processes) == 6
    at_it = timed(machine([0.295, 0.305, 0.3] * 3))
    assert len(at_it.processes) == 9
    gate = judge_latency(at_it, Budget(latency=0.3), "fp32")
    assert (gate.verdict, gate.passed) == ("undecided", False)
    assert gate.sentence.startswith("latency: 0.3 (0.29")
    assert gate.sentence.endswith("of dense FP32 p50, limit 0.3: UNDECIDED (95 % interval; 9 processes)")


def test_the_fewest_processes_do_where_nothing_is_to_be_decided(timed: Callable[..., Fresh]) -> None:
    assert len(timed(machine([0.295, 0.305, 0.3] * 3), limit=None).processes) == 3
    more = TimingConfig(runs=1500, verdict=VerdictConfig(processes=4, most=4))
    assert len(timed(machine([0.295, 0.305, 0.3] * 3), timing=more).processes) == 4


def test_a_process_on_a_machine_that_was_never_calm_is_set_aside_and_told(timed: Callable[..., Fresh]) -> None:
    found = timed(machine([0.25, 0.42, 0.251, 0.249, 0.25, 0.252], paces=[1, 1.6, 1, 1, 1, 1]))
    assert [process.figure is None for process in found.processes] == [False, True, False, False, False, False]
    assert found.interval.found == pytest.approx(0.25, rel=0.01)
    assert judge_latency(found, Budget(latency=0.3), "fp32").verdict == "met"
    assert "; 1 of the processes do not count" in found.sentence


def test_a_machine_that_is_never_calm_long_enough_is_judged_by_all_its_turns_and_so_hardly_ever_decided(timed: Callable[..., Fresh]) -> None:
    paces = [1, 1.2, 1.45, 1.7, 2.1, 2.5, 3, 3.6, 4.4]
    found = timed(machine([0.25, 0.2, 0.35] * 3, paces))
    assert found.interval.processes == 9
    assert judge_latency(found, Budget(latency=0.3), "fp32").verdict == "undecided"


def test_a_machine_that_is_slower_than_it_was_is_not_trusted_as_much(timed: Callable[..., Fresh]) -> None:
    ratios, slow = [0.25, 0.252, 0.249] * 3, [1.5] * 9
    assert len(timed(machine(ratios, slow)).processes) == 3
    doubted = timed(machine(ratios, slow), known_ms=1.0)
    assert doubted.interval.spread == pytest.approx(math.log(1.5) / 2, rel=0.01)
    assert len(doubted.processes) == 9
    assert timed(machine(ratios), known_ms=1.5).interval.spread < 0.02  # faster than before: it was the earlier timing that was disturbed


def test_a_budget_in_milliseconds_is_judged_by_milliseconds(timed: Callable[..., Fresh]) -> None:
    found = timed(machine([0.25, 0.252, 0.249], paces=[2, 2, 2]), relative=False, limit=0.6)
    gate = judge_latency(found, Budget(latency_ms=0.6), "fp32")
    assert (gate.verdict, gate.unit) == ("met", "ms p50")
    assert gate.found == pytest.approx(0.5, rel=0.01)
    assert milliseconds_of(found).found == pytest.approx(0.5, rel=0.01)


def test_without_the_dense_engine_the_milliseconds_are_over_all_turns(timed: Callable[..., Fresh]) -> None:
    whole = machine([0.25, 0.252, 0.249])
    found = timed(lambda number: {"engine": whole(number)["engine"]}, reference=None, relative=False, limit=None)
    assert found.reference is None
    assert [process.calm for process in found.processes] == [1, 1, 1]


def test_a_tail_is_judged_by_the_wall_and_over_all_turns(timed: Callable[..., Fresh]) -> None:
    def restless(number: int) -> dict[str, np.ndarray]:
        samples = {name: values.copy() for name, values in machine([0.25] * 9)(number).items()}
        samples["engine"][1, ::8] *= 4  # runs that wait for the core; the thread's own clock does not see it
        return samples

    found = timed(restless, percentile=90)
    assert found.interval.found == pytest.approx(1.0, rel=0.05)
    gate = judge_latency(found, Budget(latency=0.3, percentile=90), "fp32")
    assert (gate.verdict, gate.unit) == ("missed", "of dense FP32 p90")
    assert timed(restless).interval.found == pytest.approx(0.25, rel=0.02)


def test_every_process_is_asked_for_the_same_and_leaves_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(3))
    device = Processes(lambda: machine([0.25] * 3)(next(count)))
    use(device, monkeypatch)
    shape = {"image_shape": (1, 8, 8), "timing": TimingConfig(), "percentile": 50, "relative": True, "limit": 0.3}
    time_afresh(tmp_path, ENGINE, DENSE, **shape)  # type: ignore[arg-type]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"samples-{number}.safetensors" for number in (1, 2, 3)]
    assert [engines for engines, _ in device.asked] == [["engine", "reference"]] * 3
    assert {(protocol.once, protocol.timing.runs) for _, protocol in device.asked} == {(True, 667)}


def test_processes_are_added_while_the_p99_is_undecided(timed: Callable[..., Fresh]) -> None:
    ratios = [0.25, 0.252, 0.249] * 3
    plain = timed(machine(ratios))
    assert plain.tail is None, "nothing asked for it"
    p99 = 0.25 * 1.0235  # of a standard deviation of 1 %
    clear = timed(machine(ratios), tail_ms=2 * p99)
    assert len(clear.processes) == 3
    assert clear.tail is not None
    assert clear.tail.found == pytest.approx(p99, rel=0.01)
    at_it = timed(machine(ratios), tail_ms=p99)
    assert len(at_it.processes) == 9
    assert at_it.tail is not None
    assert at_it.tail.low < p99 < at_it.tail.high
    assert len(timed(machine(ratios), limit=None, tail_ms=p99).processes) == 9
