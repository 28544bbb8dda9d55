"""An engine alone in several processes, with made-up figures in place of processes."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scripted_device import use

from bonsai.profiles.budget import Budget
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.backends.timing_records import Alone, Energy, Untold
from bonsai.stages.measurement.alone_timing import footprint_of, time_alone
from bonsai.stages.measurement.footprint import Footprint

ENGINE = EngineFile(file=Path("e"), target=load_profile("local-cpu").target)


def alone(megabytes: float | None, millijoules: float | None = None, load_s: float = 0.1) -> Alone:
    energy = Untold(reason="no meter") if millijoules is None else Energy(millijoules=millijoules, watts=1, meter="a meter")
    memory = {"before_bytes": 50_000_000, "peak_bytes": round(50e6 + megabytes * 1e6)} if megabytes is not None else {"before_bytes": None, "peak_bytes": None}
    return Alone(start_s=0.3, load_s=load_s, first_s=0.01, warm_s=0.02, energy=energy, **memory)


class Processes:
    """A device whose processes find these figures, one after another."""

    def __init__(self, figures: Iterable[Alone | None]) -> None:
        self.figures, self.asked = iter(figures), 0

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        assert list(engines) == ["engine"], "it is alone"
        self.asked += 1
        return Timing({"engine": np.ones((2, 20), np.int64)}, 1, alone=next(self.figures))


def timed(figures: Iterable[Alone | None], monkeypatch: pytest.MonkeyPatch, budget: Budget | None) -> tuple[Footprint | None, int]:
    device = Processes(figures)
    use(device, monkeypatch)
    return time_alone(ENGINE, image_shape=(1, 8, 8), timing=TimingConfig(), budget=budget), device.asked


@pytest.mark.parametrize("budget", [None, Budget(latency=0.5), Budget(latency=0.5, p99_ms=1, size_mb=1)])
def test_one_process_does_where_neither_memory_nor_energy_is_limited(monkeypatch: pytest.MonkeyPatch, budget: Budget | None) -> None:
    found, asked = timed([alone(12)] * 9, monkeypatch, budget)
    assert asked == 1
    assert found is not None
    assert (found.memory_mb, found.memory, found.energy_mj, found.meter) == (12, None, None, "no meter")
    assert (found.before_mb, found.peak_mb, found.cold_s) == (50, 62, pytest.approx(0.41))


def test_processes_are_added_while_memory_or_energy_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = Budget(latency=0.5, memory_mb=20, energy_mj=9)
    found, asked = timed([alone(12, 5.0)] * 9, monkeypatch, clear)
    assert asked == 3
    assert found is not None
    assert found.memory is not None
    assert found.memory.high < 20
    for near in (Budget(latency=0.5, memory_mb=12), Budget(latency=0.5, energy_mj=5)):
        assert timed([alone(12, 5.0)] * 9, monkeypatch, near)[1] == 9


def test_a_device_that_tells_nothing_of_an_engine_alone_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed([None], monkeypatch, Budget(latency=0.5, memory_mb=12)) == (None, 1)


def test_figures_are_medians_over_the_processes() -> None:
    found = footprint_of([alone(12, 5, 0.1), alone(14, 6, 0.5), alone(13, 9, 0.2)], looks=1)
    assert (found.memory_mb, found.energy_mj, found.load_s, found.meter) == (13, 6, 0.2, "a meter")


def test_an_engine_that_adds_nothing_counts_as_a_page_and_one_silent_process_makes_a_figure_unknown() -> None:
    assert footprint_of([alone(-3), alone(0)], looks=1).memory_mb == 0.004096
    mixed = footprint_of([alone(12, 5), alone(12)], looks=1)
    assert (mixed.energy_mj, mixed.energy, mixed.meter) == (None, None, "no meter")
