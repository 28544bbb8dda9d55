"""By what a finished run is found again, and what makes it another one."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run import repeating
from bonsai.pipeline.run.repeating import Notes, key_of, warnings_of_run
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.finished import FINISHED
from bonsai.stages.store.store import Store, stage
from bonsai.stages.training.progress import say

IMAGES = {"data.name": "image_folder", "data.options": {"root": "images"}}


@stage(version=1, timed=True)
def time_engine(out_dir: Path, engine: str, repetition: int) -> Artifact:
    return Artifact(folder=out_dir)


@stage(version=1)
def write(out_dir: Path, text: str) -> Artifact:
    (out_dir / "text.txt").write_text(text)
    return Artifact(folder=out_dir)


@stage(version=1, beside="of")
def moments(out_dir: Path, of: Artifact) -> Artifact:
    return Artifact(folder=out_dir)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, list[HardwareProfile]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(b"one")
    return load_recipe("resnet-edge", IMAGES), [load_profile("local-cpu")]


def test_the_same_request_has_the_same_key_wherever_it_is_made(
    asked: tuple[Recipe, list[HardwareProfile]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(*asked)
    shutil.copytree("images", "others/images")
    monkeypatch.chdir(tmp_path / "others")
    assert key_of(load_recipe("resnet-edge", IMAGES), [load_profile("local-cpu")]) == key
    assert key is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda recipe, profiles, _: (load_recipe("resnet-edge", {**IMAGES, "training.seed": 5}), profiles),
        lambda recipe, profiles, _: (recipe, [load_profile("local-cpu", {"budget.latency": 0.3})]),
        lambda recipe, profiles, _: (recipe, [*profiles, load_profile("x86-avx2")]),
        lambda recipe, profiles, _: Path("images/one.png").write_bytes(b"two"),
        lambda recipe, profiles, _: Path("images/two.png").write_bytes(b"two"),
        lambda recipe, profiles, patch: patch.setattr(repeating, "_installed", lambda: ["torch-3.0.dist-info"]),
        lambda recipe, profiles, patch: patch.setattr(repeating, "runtime_here", lambda: "another CPU"),
        lambda recipe, profiles, patch: patch.setattr(repeating, "BONSAI", (Path("images"),)),
    ],
    ids=["recipe", "profile", "profiles", "changed image", "new image", "packages", "machine", "code"],
)
def test_whatever_enters_a_run_makes_another_key(
    asked: tuple[Recipe, list[HardwareProfile]], change: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_of(*asked)
    changed = change(*asked, monkeypatch)
    assert key_of(*(changed if isinstance(changed, tuple) else asked)) not in {before, None}


def test_a_table_counts_by_its_contents(asked: tuple[Recipe, list[HardwareProfile]]) -> None:
    recipe, (profile,) = asked
    Path("table.csv").write_text("one")
    measured = [profile.model_copy(update={"tables": ("table.csv",)})]
    before = key_of(recipe, measured)
    Path("table.csv").write_text("two")
    assert key_of(recipe, measured) not in {before, None}
    Path("table.csv").unlink()
    assert key_of(recipe, measured) is None


@pytest.mark.parametrize("key", ["model.name", "data.name"])
def test_a_run_with_code_of_the_users_own_is_looked_up_stage_by_stage(asked: tuple[Recipe, list[HardwareProfile]], key: str) -> None:
    name = f"repeated_{key.partition('.')[0]}"
    Path(f"{name}.py").write_text("def make(**_): ...")
    assert key_of(load_recipe("resnet-edge", {**IMAGES, key: f"{name}:make"}), asked[1]) is None


def test_the_newest_timing_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_TIMING_LOCK", str(store.root / "lock"))
    monkeypatch.setattr(repeating, "time_engine", time_engine)
    first = store.run(time_engine, engine="a", repetition=1)
    store.run(time_engine, engine="b", repetition=2)
    run = repeating.FinishedRun(key="k", packages=(), artifacts={f"time_engine/{first.key}": first.digest}, warnings=())
    assert not repeating._timed_since(store, run)
    store.run(time_engine, engine="a", repetition=2)
    assert repeating._timed_since(store, run)


def test_a_run_is_kept_with_all_that_it_used_but_moments(asked: tuple[Recipe, list[HardwareProfile]], store: Store, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes(*asked, store.run)
    with caplog.at_level(logging.INFO, logger="bonsai"), warnings_of_run() as warnings:
        made = notes.step(write, text="a")
        notes.step(moments, of=made)
        say("warning: few images")
        say("trunk: 1 of 2")
    with caplog.at_level(logging.INFO, logger="bonsai"):
        notes.keep(store.root, [], warnings)
    (file,) = (store.root / FINISHED).iterdir()
    kept = repeating.recall(store.root, file.stem)
    assert kept is not None
    assert kept.artifacts == {f"write/{made.key}": made.digest}
    assert kept.warnings == ("warning: few images",)


def test_a_run_whose_files_were_changed_meanwhile_is_not_kept(asked: tuple[Recipe, list[HardwareProfile]], store: Store) -> None:
    notes = Notes(*asked, store.run)
    notes.step(write, text="a")
    Path("images/one.png").write_bytes(b"two")
    notes.keep(store.root, [], [])
    assert not (store.root / FINISHED).exists()
