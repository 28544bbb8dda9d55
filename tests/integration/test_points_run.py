"""Points of a profile in small runs: one engine is timed at each, judged at each, and narrower where a point asks for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bonsai import compress
from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.other_limits import require_other_limits
from bonsai.pipeline.run.targets import prepare_target
from bonsai.profiles.errors import BudgetError, ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.packaged_timing import time_package
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.store.store import Store

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu"))
QUICK: dict[str, Any] = {
    "training.epochs": 1,
    "training.threads": 1,
    "prune.epi": {"every": 0.2, "window": 1, "monotone": 0, "latest": 0.5},
    "prune.rounds": 2,
    "export.min_agreement": 0.5,
    "timing": {"runs": 300, "block": 10, "warmup_runs": 10, "warmup_seconds": 0, "fitting": 4, "tries": 1, "verdict": {"most": 3}},
    "profile.target.precision": "fp32",
    "profile.gates.max_drop": 1,
    "profile.budget.latency": 0.8,
}
POINTS: list[dict[str, Any]] = [{"batch": 8, "budget": {"latency": 0.95}}, {"batch": 4, "threads": 2, "budget": {"latency_ms": 50, "memory_mb": 1000}}]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("points")


def run(store: Path, *points: dict[str, Any], **settings: Any) -> Package:
    (package,) = compress(TINY, CPU, {**QUICK, "profile.points": list(points), **settings}, store=store)
    return package


def artifacts(store: Path, stage: str) -> int:
    return sum(1 for _ in store.glob(f"{stage}/*"))


@pytest.fixture(scope="module")
def judged(store: Path) -> Package:
    return run(store, *POINTS)


def test_every_point_is_judged_by_a_fresh_timing_of_the_one_engine(store: Path, judged: Package) -> None:
    gates = {gate.name: gate for gate in judged.gates}
    assert list(gates) == ["latency", "accuracy drop", "latency at batch 8", "latency at batch 4 and 2 threads", "memory at batch 4 and 2 threads"]
    timings = {}
    for manifest in Store(store).manifests(time_engine):
        target = manifest.inputs["target"]
        timings[target["batch"], target["threads"]] = manifest
    assert sorted(timings) == [(1, 1), (4, 2), (8, 1)]
    assert len({json.dumps(manifest.inputs["engine"]) for manifest in timings.values()}) == 1, "one engine"
    for name, place in (("latency", (1, 1)), ("latency at batch 8", (8, 1)), ("latency at batch 4 and 2 threads", (4, 2))):
        interval = timings[place].record["fresh"]["interval"]
        assert (gates[name].found, gates[name].low, gates[name].high) == (interval["found"], interval["low"], interval["high"])
    assert gates["memory at batch 4 and 2 threads"].found == timings[4, 2].record["footprint"]["memory_mb"]
    assert gates["latency at batch 8"].unit == "of dense FP32 p50"
    assert gates["latency at batch 8"].verdict == "met"


def test_points_are_shown_wherever_the_verdict_is(store: Path, judged: Package) -> None:
    folder = store / "packages" / "tiny--tiny-cpu"
    manifest = read_intact(folder)
    assert [(at.point, at.batch, at.threads) for at in manifest.points] == [("batch 8", 8, 1), ("batch 4 and 2 threads", 4, 2)]
    eight = manifest.points[0]
    assert eight.dense.p50 > 2 * manifest.metrics[0].latency.p50, "eight images take longer than one"  # type: ignore[union-attr]
    assert eight.engine.p50 / eight.dense.p50 == pytest.approx({gate.name: gate.found for gate in judged.gates}["latency at batch 8"], rel=0.1)
    assert manifest.compatibility.batch == (1, 8)
    for name in ("MODEL_CARD.md", "report.md"):
        text = (folder / name).read_text()
        assert "| point | batch | threads | dense ms | engine ms |" in text, name
        assert "| batch 4 and 2 threads | 4 | 2 |" in text, name
        assert "latency at batch 8" in text, name
    assert "at batch 8 p50 <= 0.95 of the dense network; at batch 4 and 2 threads p50 <= 50 ms, memory <= 1000 MB." in (folder / "MODEL_CARD.md").read_text()


def test_verify_judges_every_point_anew(store: Path, judged: Package) -> None:
    lines, gates = time_package(store / "packages" / "tiny--tiny-cpu", store)
    assert [gate.name for gate in gates] == ["latency", *(gate.name for gate in judged.gates if " at " in gate.name)]
    (eight,) = (line for line in lines if line.startswith("at batch 8: latency: "))
    assert "times what the package says: " in eight
    untold, others = time_package(store / "packages" / "tiny--tiny-cpu", store / "nowhere")
    assert sum("latency not judged: the limit is " in line for line in untold) == 2
    assert [gate.name for gate in others] == ["latency at batch 4 and 2 threads", "memory at batch 4 and 2 threads"]


def test_a_point_that_binds_gives_a_narrower_network_from_the_same_trunk(store: Path, judged: Package, caplog: pytest.LogCaptureFixture) -> None:
    trunk, engines = artifacts(store, "train_dense"), artifacts(store, "time_engine")
    with caplog.at_level("INFO", logger="bonsai"):
        tight = run(store, {"batch": 8, "budget": {"latency": 0.5}})
    assert "tiny-cpu at batch 8: an untrained engine of these widths needs" in caplog.text
    assert "narrower ones are chosen" in caplog.text
    assert sum(tight.decisions.kept_widths.values()) < sum(judged.decisions.kept_widths.values())
    gates = {gate.name: gate for gate in tight.gates}
    assert gates["latency at batch 8"].verdict == "met", gates
    assert gates["latency"].found < {gate.name: gate.found for gate in judged.gates}["latency"]
    assert artifacts(store, "train_dense") == trunk, "one trunk for all"
    assert artifacts(store, "time_engine") == engines + 2


def test_a_point_that_no_width_meets_is_refused_before_training(store: Path, judged: Package) -> None:
    recovered = artifacts(store, "recover")
    with pytest.raises(BudgetError, match=r"(?s)profile tiny-cpu at batch 8: the latency budget cannot be met.*at least [\d.]+ ms, the fp32 engine"):
        run(store, {"batch": 8, "budget": {"latency": 0.001}})
    assert artifacts(store, "recover") == recovered


def test_a_p99_of_an_engine_that_is_too_slow_at_the_point_is_refused_before_training(store: Path, judged: Package) -> None:
    recovered, timing = artifacts(store, "recover"), {**QUICK["timing"], "runs": 1000, "seconds": 0.05}
    with pytest.raises(ConfigError, match=r"(?s)profile tiny-cpu at batch 8: a p99 is not found from so few runs.*timing\.seconds 0\.05"):
        run(store, {"batch": 8, "budget": {"latency": 0.95, "p99_ms": 100}}, timing=timing)
    assert artifacts(store, "recover") == recovered


def test_a_point_that_is_missed_has_a_second_narrower_network_trained(store: Path, judged: Package) -> None:
    missed = run(store, {"batch": 8, "budget": {"latency": 0.95, "memory_mb": 0.01}})
    assert {gate.name: gate.verdict for gate in missed.gates}["memory at batch 8"] == "missed"
    first, second = missed.decisions.attempts
    assert sum(second.widths.values()) < sum(first.widths.values())


def test_a_timer_at_a_point_times_the_engines_of_the_target_there(store: Path, judged: Package) -> None:
    shared = {key: value for key, value in QUICK.items() if not key.startswith("profile.")}
    recipe = load_recipe(TINY, shared)
    profile = load_profile(CPU, {"target.precision": "fp32", "gates.max_drop": 1, "budget.latency": 0.8, "points": POINTS})
    network = inspect_network(recipe, (1, 16, 16), 10)
    target = prepare_target(recipe, profile, network, Store(store).run)
    built = artifacts(store, "compile")
    require_other_limits(target)
    eight, four = target.points
    assert (eight.at.name, four.at.target.threads) == ("tiny-cpu at batch 8", 2)
    assert eight.dense_ms > 2 * target.dense_ms, "eight images take longer than one"
    assert eight.build({}, profile.target).key == target.timer.build({}, profile.target).key
    assert artifacts(store, "compile") == built
    timed = {artifact.digest for timer in target.points for artifact in timer.evidence}
    assert timed
    assert timed <= {artifact.digest for artifact in target.evidence}
