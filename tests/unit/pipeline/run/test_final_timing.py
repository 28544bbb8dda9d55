"""Timing a finished engine again: which repetition is asked for, from what a store holds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run import final_timing
from bonsai.pipeline.run.final_timing import time_finished, time_points
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.budget import Budget
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_config import TimingConfig, VerdictConfig
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Fresh, FreshTiming, Measurement, ProcessFigures
from bonsai.stages.measurement.process_interval import interval_between
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Store, stage

asked: list[int] = []
places: list[tuple[int, int, int, float | None]] = []
"""Batch, threads, percentile and known milliseconds of each timing."""


@stage(version=1, timed=True)
def time_engine(
    out_dir: Path,
    engine: Engine,
    dense: Engine | None,
    target: Target,
    budget: Budget,
    timing: TimingConfig,
    verdict: VerdictConfig,
    known_ms: float | None,
    repetition: int,
) -> FreshTiming:
    asked.append(repetition)
    places.append((target.batch, target.threads, budget.percentile, known_ms))
    latency = Latency(source="measured", clock="wall", p50=1)
    process = ProcessFigures(figure=0.2, error=0, milliseconds=0.2, reference_ms=1, calm=1)
    fresh = Fresh(percentile=50, engine=latency, reference=latency, processes=(process,) * 3, interval=interval_between([0.2] * 3, [0.0] * 3), contention=1)
    return FreshTiming(folder=out_dir, fresh=fresh, repetition=repetition)


def test_every_point_is_timed_with_its_own_threads_batch_and_budget(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked.clear()
    places.clear()
    monkeypatch.setenv("BONSAI_TIMING_LOCK", str(store.root / "lock"))
    monkeypatch.setattr(final_timing, "time_engine", time_engine)
    points = [{"batch": 8, "budget": {"latency": 0.3}}, {"threads": 2, "budget": {"latency_ms": 3, "percentile": 90}}]
    target = SimpleNamespace(info=SimpleNamespace(present=True), profile=load_profile("local-cpu", {"points": points}))
    dense = Latency(source="measured", clock="wall", p50=7.5, p90=9.5)
    at = tuple(SimpleNamespace(point=label, dense=dense) for label in ("2 threads", "batch 8"))
    engine = Engine.model_construct(folder=store.root / "compile" / "1", digest="e", key="1")
    facts = (load_recipe("resnet-edge").timing, cast(ReadyTarget, target), engine, engine, cast(Measurement, SimpleNamespace(points=at)), store.run)
    first, again = time_points(*facts, remeasure=False), time_points(*facts, remeasure=True)
    assert [one.repetition for one in (*first, *again)] == asked == [1, 1, 2, 2]
    assert places == [(8, 1, 50, 7.5), (1, 2, 90, 9.5)] * 2


@pytest.fixture
def finished(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FreshTiming | None]:
    asked.clear()
    monkeypatch.setenv("BONSAI_TIMING_LOCK", str(store.root / "lock"))
    monkeypatch.setattr(final_timing, "time_engine", time_engine)

    def call(*, remeasure: bool = False, digest: str = "e", present: bool = True, timing: TimingConfig | None = None) -> FreshTiming | None:
        engine = Engine.model_construct(folder=store.root / "compile" / "1", digest=digest, key="1")
        target = SimpleNamespace(info=SimpleNamespace(present=present), profile=load_profile("local-cpu"))
        row = SimpleNamespace(latency=Latency(source="measured", clock="wall", p50=1.5))
        measurement = cast(Measurement, SimpleNamespace(rows=(row,)))
        return time_finished(
            timing or load_recipe("resnet-edge").timing, cast(ReadyTarget, target), engine, engine, measurement, store.run, remeasure=remeasure
        )

    return call


def repetition(timing: FreshTiming | None) -> int:
    assert timing is not None
    return timing.repetition


def test_an_engine_is_timed_once_until_the_user_asks_for_more(finished: Callable[..., FreshTiming | None]) -> None:
    assert repetition(finished()) == repetition(finished()) == 1
    assert repetition(finished(remeasure=True)) == 2
    assert repetition(finished()) == 2
    assert repetition(finished(remeasure=True)) == 3
    assert asked == [1, 2, 3]


def test_another_engine_starts_anew(finished: Callable[..., FreshTiming | None]) -> None:
    finished(remeasure=True)
    finished(remeasure=True)
    assert repetition(finished(digest="other")) == 1


def test_the_newest_timing_is_found_where_the_older_ones_were_freed(finished: Callable[..., FreshTiming | None]) -> None:
    first, second = finished(), finished(remeasure=True)
    assert first is not None
    shutil.rmtree(first.folder)
    assert finished() == second
    assert repetition(finished(remeasure=True)) == 3


def test_more_processes_are_another_timing_of_the_same_engine(finished: Callable[..., FreshTiming | None]) -> None:
    finished(remeasure=True)
    more = load_recipe("resnet-edge", {"timing.verdict.most": 20}).timing
    assert repetition(finished(timing=more)) == 1


def test_an_engine_whose_device_is_not_here_is_not_timed(finished: Callable[..., FreshTiming | None]) -> None:
    assert finished(present=False) is None
    assert finished(present=False, remeasure=True) is None
    assert asked == []


def test_what_is_asked_is_what_the_stage_takes() -> None:
    import inspect

    from bonsai.stages.steps.time_engine import time_engine as real

    assert inspect.signature(real) == inspect.signature(time_engine)
    assert issubclass(cast(Any, FreshTiming), Artifact)
