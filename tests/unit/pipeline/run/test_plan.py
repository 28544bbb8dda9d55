"""A stage says everything about itself once: no other file lists it."""

from pathlib import Path
from typing import Any

import pytest

from bonsai.pipeline.cli.lineage_tree import read_family
from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run import plan
from bonsai.pipeline.run.plan import GroupPlan, Plan, TargetPlan, look_up
from bonsai.pipeline.run.prospects import Prospect
from bonsai.pipeline.tables import show_plan
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.delivery.packaged_timing import STAGE
from bonsai.stages.reporting.comparison import TRUNK
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step, Store, stage


class Sap(Artifact):
    litres: int


def figures_of(sap: Sap) -> str:
    return f"{sap.litres} litres"


@stage(version=1, figures=figures_of)
def water(out_dir: Path, litres: int) -> Sap:
    return Sap(folder=out_dir, litres=litres)


@stage(version=1, figures=figures_of)
def a_new_stage(out_dir: Path, sap: Sap) -> Sap:
    return Sap(folder=out_dir, litres=sap.litres + 1)


@stage(version=1)
def blossom(out_dir: Path, sap: Sap) -> Sap:
    return Sap(folder=out_dir, litres=sap.litres)


def flow(_recipe: Recipe, _profiles: list[HardwareProfile], step: Step, *_others: object) -> None:
    """Come to `water` twice, with the new stage in between."""
    new = step(a_new_stage, sap=step(water, litres=3))
    step(water, litres=5)
    step(blossom, sap=new)


@pytest.fixture
def finished(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the flow but for its last stage, and look it up."""
    monkeypatch.setattr(plan, "grow", flow)
    store.run(a_new_stage, sap=store.run(water, litres=3))
    store.run(water, litres=5)
    cached, next_stage = look_up(load_recipe("resnet-edge"), load_profile("local-cpu"), store, {})
    return {"cached": cached, "next_stage": next_stage}


def test_a_new_stage_stands_in_the_dry_run_where_the_flow_comes_to_it(finished: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(finished["cached"].items()) == [("water", 2), ("a_new_stage", 1)]
    prospect = Prospect(prunable_macs=1, least_macs=0.1, seen_macs=1, dense_ms=None, smallest_ms=None, source="not timed")
    texts = {"profile": "p", "device": "d", "budget": "b", "gates": "g", "preflight": "f"}
    groups = (GroupPlan(name="stem", width=32, options=(16, 32)), GroupPlan(name="qkv", width=3, positions=192, options=(1, 2, 3)))
    target = TargetPlan(**texts, prospect=prospect, groups=groups, **finished)
    show_plan(Plan(recipe="r", images={}, epochs=1, trunk_segments=1, targets=(target,)), as_json=False)
    told = capsys.readouterr().out
    assert [" ".join(line.replace("│", " ").split()) for line in told.splitlines() if "stem" in line or "qkv" in line] == ["stem 32 16 32", "qkv 3 x 192 1 2 3"]
    assert "finished: water 2, a_new_stage 1\nwould run: blossom and what follows it" in told


def test_a_new_stage_is_shown_with_its_own_figures(store: Store) -> None:
    made = store.run(blossom, sap=store.run(a_new_stage, sap=store.run(water, litres=3)))
    assert [(node.stage, node.figures) for node in read_family(str(made.folder), store.root).nodes] == [
        ("blossom", ""),
        ("a_new_stage", "4 litres"),
        ("water", "3 litres"),
    ]


def test_what_readers_of_packages_call_a_stage_is_its_name() -> None:
    assert (train_dense.__name__, f"{time_engine.__name__}/") == (TRUNK, STAGE)
