import time

import numpy as np
import pytest
from pydantic import ValidationError

from bonsai.stages.backends.timing import time_interleaved, time_steadily
from bonsai.stages.backends.timing_config import TimingConfig, VerdictConfig
from bonsai.stages.measurement.samples import contention, summarise
from bonsai.stages.store.artifact import fingerprint


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_engines_take_turns_and_the_slower_one_is_found_slower() -> None:
    order: list[str] = []

    def engine(name: str, seconds: float):
        def run(images: np.ndarray) -> np.ndarray:
            order.append(name)
            spin(seconds)
            return images

        return run

    config = TimingConfig(runs=40, block=10, warmup_runs=2, warmup_seconds=0)
    samples = time_interleaved({"fast": engine("fast", 0.0002), "slow": engine("slow", 0.0006)}, dict.fromkeys(("fast", "slow"), np.zeros(1)), config)
    timed = order[4:]
    assert timed == (["fast"] * 10 + ["slow"] * 10) * 4
    fast, slow = (summarise(samples[name], "thread_cpu") for name in ("fast", "slow"))
    assert slow.p50 / fast.p50 == pytest.approx(3, rel=0.3)
    assert contention(samples) >= 0.99


def test_more_processes_for_a_verdict_are_no_other_protocol_for_what_is_timed_before_training() -> None:
    more = TimingConfig(verdict=VerdictConfig(processes=5, most=20))
    assert more.identity() == TimingConfig().identity()
    assert fingerprint(more.verdict) != fingerprint(VerdictConfig())


def test_the_runs_are_shared_among_the_fewest_processes() -> None:
    assert TimingConfig(runs=2000, seconds=20).in_process().runs == 667
    assert TimingConfig(runs=100).in_process().runs == 60
    assert TimingConfig(runs=20).in_process().runs == 20


def test_fewer_processes_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"`most` must be at least `processes` \(5\)"):
        VerdictConfig(processes=5, most=4)


def test_a_disturbed_timing_is_repeated_and_the_steadiest_counts() -> None:
    rounds: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        rounds.append(0)
        disturbed = len(rounds) <= 45 and (len(rounds) // 5) % 2
        spin(0.0006 if disturbed else 0.0002)
        return images

    config = TimingConfig(runs=40, block=5, warmup_runs=2, warmup_seconds=0, steady=0.02, tries=3)
    samples = time_steadily({"engine": run}, {"engine": np.zeros(1)}, config, "thread_cpu")
    assert len(rounds) in {84, 126}
    assert summarise(samples["engine"], "thread_cpu").p50 < 0.4


def test_a_slow_engine_is_run_less_often() -> None:
    config = TimingConfig(runs=1000, block=25, seconds=0.2, warmup_runs=5, warmup_seconds=0)

    def slow(images: np.ndarray) -> np.ndarray:
        spin(0.002)
        return images

    samples = time_interleaved({"slow": slow}, {"slow": np.zeros(1)}, config)
    assert 60 <= samples["slow"].shape[1] <= 130
    assert samples["slow"].min() > 0
