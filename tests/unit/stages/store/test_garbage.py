"""What is freed, and what never is."""

import json
import os
import time
from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.located_yaml import Record
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.finished import FINISHED, FinishedRun, recall, remember
from bonsai.stages.store.garbage import DAY, free, take_inventory
from bonsai.stages.store.lineage import trace_lineage
from bonsai.stages.store.locks import hold
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import IN_USE, LOCKS, WORK, Store, stage


class Config(Record):
    value: int = 1


class Number(Artifact):
    value: int


@stage(version=1)
def seed(out_dir: Path, config: Config) -> Number:
    (out_dir / "number.txt").write_text(str(config.value) * 100)
    return Number(folder=out_dir, value=config.value)


@stage(version=1)
def grown(out_dir: Path, number: Number) -> Number:
    (out_dir / "number.txt").write_text(str(number.value))
    return Number(folder=out_dir, value=number.value)


def publish(store: Store, result: Number, name: str = "one--cpu") -> Path:
    """Write what freeing reads of a package: its name and lineage."""
    folder = store.root / "packages" / name
    folder.mkdir(parents=True)
    lineage = [ancestor.model_dump() for ancestor in trace_lineage(result).ancestors]
    (folder / MANIFEST).write_text(json.dumps({"name": name, "lineage": lineage}))
    return folder


def make(store: Store, value: int) -> Number:
    return store.run(grown, number=store.run(seed, config=Config(value=value)))


def there(store: Store) -> set[str]:
    return {file.parent.relative_to(store.root).as_posix() for file in store.root.glob(f"[!p]*/*/{MANIFEST}")}


def test_what_a_package_was_made_from_stays_and_the_rest_goes(store: Store) -> None:
    publish(store, make(store, 1))
    needed = there(store)
    make(store, 2)
    shown = take_inventory(store.root, keep_days=0)
    assert there(store) > needed
    assert shown.packages == ("one--cpu",)
    assert [item.path.split("/")[0] for item in shown.waste] == ["grown", "seed"]
    assert shown.size == sum(file.stat().st_size for item in shown.waste for file in (store.root / item.path).rglob("*") if file.is_file())
    assert free(store.root, keep_days=0).size == shown.size
    assert there(store) == needed
    assert not (store.root / ".trash").exists()


def test_a_package_elsewhere_keeps_what_it_needs_where_it_is_named(store: Store, tmp_path: Path) -> None:
    package = publish(store, make(store, 1)).rename(tmp_path / "elsewhere")
    assert free(store.root, keep_days=0, packages=[package]).waste == ()
    assert len(free(store.root, keep_days=0).waste) == 2


def test_what_is_young_stays_with_its_origins_however_old(store: Store) -> None:
    made = make(store, 1)
    origin = store.run(seed, config=Config(value=1))
    make(store, 2)
    old = time.time() - 10 * 24 * 3600
    for folder in store.root.glob("[!p.]*/*"):
        if folder != made.folder:
            os.utime(folder / MANIFEST, (old, old))
    assert {made.folder, origin.folder} == {store.root / address for address in there(store)} - {
        store.root / item.path for item in free(store.root, keep_days=7).waste
    }
    assert len(there(store)) == 2


def test_a_stopped_stages_folder_goes_and_a_working_ones_stays(store: Store) -> None:
    make(store, 1)
    for name in ("train_dense-stopped", "train_dense-working"):
        (store.root / WORK / name).mkdir()
    with hold(store.root / LOCKS / "train_dense-working"):
        freed = free(store.root, keep_days=0)
    assert f"{WORK}/train_dense-stopped" in [item.path for item in freed.waste]
    assert [folder.name for folder in (store.root / WORK).iterdir()] == ["train_dense-working"]


def test_nothing_is_freed_while_a_run_works(store: Store) -> None:
    make(store, 1)
    with store.in_use(), pytest.raises(ConfigError, match="a run is working in this store"):
        free(store.root, keep_days=0)
    assert len(there(store)) == 2
    assert (store.root / LOCKS / IN_USE).exists()


def test_runs_share_the_store(store: Store) -> None:
    with store.in_use(), hold(store.root / LOCKS / IN_USE, shared=True):
        assert store.run(seed, config=Config()).value == 1


def test_the_record_of_a_finished_run_goes_with_the_first_of_its_artifacts(store: Store) -> None:
    made = make(store, 1)
    folder, other = publish(store, made), make(store, 2)
    runs = {"kept": [made], "half": [made, other], "gone": [other]}
    for key, artifacts in runs.items():
        used = {f"grown/{artifact.key}": artifact.digest for artifact in artifacts}
        remember(store.root, FinishedRun(key=key, packages=(), artifacts=used, warnings=()))
    (store.root / FINISHED / ".kept.json.part").write_text("half a record")
    inventory = free(store.root, keep_days=0)
    assert {item.path for item in inventory.waste if item.path.startswith(FINISHED)} == {f"{FINISHED}/{name}.json" for name in ("half", "gone")} | {
        f"{FINISHED}/.kept.json.part"
    }
    assert recall(store.root, "kept") is not None
    assert [file.name for file in (store.root / FINISHED).iterdir()] == ["kept.json"]
    assert folder.is_dir()


def test_what_a_killed_freeing_left_is_deleted_by_the_next(store: Store) -> None:
    publish(store, make(store, 1))
    (store.root / ".trash" / "seed-0123").mkdir(parents=True)
    assert [item.path for item in free(store.root, keep_days=7).waste] == [".trash/seed-0123"]
    assert not (store.root / ".trash").exists()


def test_a_leftover_does_not_stand_in_the_way_of_what_was_made_anew(store: Store) -> None:
    made = make(store, 1)
    (store.root / ".trash" / f"grown-{made.folder.name}" / "half").mkdir(parents=True)
    assert len(free(store.root, keep_days=0).waste) == 3
    assert there(store) == set()


def test_what_was_set_aside_and_what_was_never_finished_is_listed_and_freed(store: Store) -> None:
    publish(store, make(store, 1))
    damaged, unfinished = make(store, 2), make(store, 3)
    (damaged.folder / "number.txt").write_text("3")
    make(store, 2)
    (unfinished.folder / MANIFEST).unlink()
    (unfinished.folder / ".spare" / MANIFEST).write_text("{")
    old = time.time() - 10 * DAY
    for folder in (unfinished.folder, *unfinished.folder.rglob("*")):
        os.utime(folder, (old, old))
    assert [item.path for item in take_inventory(store.root, keep_days=7).waste] == [f"grown/{unfinished.folder.name}"]
    freed = {item.path for item in free(store.root, keep_days=0).waste}
    assert {f".damaged/grown-{damaged.folder.name}", f"grown/{unfinished.folder.name}"} < freed
    assert not unfinished.folder.exists()
    assert list((store.root / ".damaged").iterdir()) == []


def test_an_artifact_whose_spare_manifest_alone_is_left_is_kept_for_its_package(store: Store) -> None:
    made = make(store, 1)
    publish(store, made)
    (made.folder / MANIFEST).write_text("{")
    assert free(store.root, keep_days=0).waste == ()


@pytest.mark.parametrize("manifest", ['{"name": "one--cpu", "lineage": []}', '{"short_name": "app", "icons": []}', "[]", "no json"])
def test_what_only_looks_like_an_artifact_is_left_alone(store: Store, manifest: str) -> None:
    folder = store.root / "release" / "one--cpu"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest)
    make(store, 1)
    assert {item.path.split("/")[0] for item in free(store.root, keep_days=0).waste} == {"grown", "seed"}
    assert (folder / MANIFEST).read_text() == manifest


def test_a_package_whose_needs_cannot_be_read_stops_it(store: Store) -> None:
    (publish(store, make(store, 1)) / MANIFEST).write_text("{")
    with pytest.raises(ConfigError, match="so nothing is freed"):
        free(store.root, keep_days=0)
    assert len(there(store)) == 2


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no store of artifacts"):
        take_inventory(tmp_path, keep_days=0)
