"""A store whose bytes have changed: what differs is named, set aside, and there again."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bonsai.pipeline.run.final_timing import newest_repetition
from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.store.artifact import SETTLED_NS, Artifact, sha256_file
from bonsai.stages.store.lineage import trace_lineage
from bonsai.stages.store.manifest import MANIFEST, SPARE
from bonsai.stages.store.store import DAMAGED, Store, load_artifact, stage
from bonsai.stages.training.resume import load_progress, save_progress

calls: list[str] = []


class Config(Record):
    value: int = 1


class Number(Artifact):
    value: float


@stage(version=1)
def seeded(out_dir: Path, config: Config) -> Number:
    calls.append("seeded")
    save_file({"values": torch.arange(8) * config.value}, out_dir / "values.safetensors")
    (out_dir / "part").mkdir()
    (out_dir / "part" / "text.txt").write_text("text")
    return Number(folder=out_dir, value=config.value)


@stage(version=1, timed=True)
def clocked(out_dir: Path, number: Number) -> Number:
    calls.append("clocked")
    (out_dir / "samples.txt").write_text(str(time.time_ns()))
    return Number(folder=out_dir, value=time.perf_counter())


@stage(version=1)
def summed(out_dir: Path, number: Number, timing: Number) -> Number:
    calls.append("summed")
    (out_dir / "sum.txt").write_text(str(number.value + timing.value))
    return Number(folder=out_dir, value=number.value + timing.value)


def make_all(store: Store) -> Number:
    number = store.run(seeded, config=Config(value=3))
    return store.run(summed, number=number, timing=store.run(clocked, number=number))


def flip(file: Path, place: int) -> None:
    """Flip one bit of a byte, counted from the file's beginning."""
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << place % 8
    file.write_bytes(content)


def files_of(root: Path) -> list[str]:
    stages = (seeded.__name__, clocked.__name__, summed.__name__)
    return sorted(file.relative_to(root).as_posix() for stage in stages for file in (root / stage).rglob("*") if file.is_file())


def content_of(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files_of(root)}


def test_one_flipped_bit_in_any_file_leads_to_the_same_digest_and_the_same_bytes(store: Store) -> None:
    made = make_all(store)
    intact = content_of(store.root)
    for name in intact:
        if f"/{SPARE}/" not in name:
            for place in (0, 9, 107, 1001):
                flip(store.root / name, place)
                assert make_all(store) == made, f"{name}, byte {place}"
                assert content_of(store.root) == intact, f"{name}, byte {place}"


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b""), lambda file: os.truncate(file, 3)], ids=["gone", "empty", "cut"])
def test_a_file_that_is_gone_or_cut_short_is_there_again(store: Store, damage: Callable[[Path], object]) -> None:
    made = make_all(store)
    intact = content_of(store.root)
    for name in intact:
        if f"/{SPARE}/" not in name:
            damage(store.root / name)
            assert make_all(store) == made, name
            assert content_of(store.root) == intact, name


def test_a_damaged_spare_disturbs_nobody(store: Store) -> None:
    make_all(store)
    for name in files_of(store.root):
        if f"/{SPARE}/" in name:
            flip(store.root / name, 40)
    calls.clear()
    make_all(store)
    assert calls == []


def test_only_what_is_damaged_is_made_again_and_what_was_is_set_aside(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    number = make_all(store) and store.run(seeded, config=Config(value=3))
    (number.folder / "part" / "text.txt").write_text("test")
    calls.clear()
    with caplog.at_level(logging.INFO, logger="bonsai"):
        make_all(store)
    assert calls == ["seeded"]
    assert (store.root / DAMAGED / f"seeded-{number.key}" / "part" / "text.txt").read_text() == "test"
    assert f"seeded/{number.key} is damaged: part/text.txt differs from its hash in the manifest; it is set aside" in caplog.text
    (number.folder / "part" / "text.txt").write_text("tent")
    make_all(store)
    assert {folder.name for folder in (store.root / DAMAGED).iterdir()} == {f"seeded-{number.key}", f"seeded-{number.key}-1"}


def test_a_damaged_manifest_and_measured_files_are_restored_without_running_a_stage(store: Store) -> None:
    make_all(store)
    calls.clear()
    for name in files_of(store.root):
        if name.endswith(("samples.txt", MANIFEST)) and SPARE not in name:
            flip(store.root / name, 30)
    make_all(store)
    assert calls == []


def test_what_was_set_aside_by_a_run_that_was_killed_then_is_still_restored(store: Store) -> None:
    made = make_all(store)
    timing = next((store.root / "clocked").iterdir())
    (timing / "samples.txt").unlink()
    (store.root / DAMAGED).mkdir()
    timing.rename(store.root / DAMAGED / f"clocked-{timing.name}")
    calls.clear()
    assert make_all(store) == made
    assert calls == []


def test_a_file_that_may_not_be_read_is_no_damage(store: Store) -> None:
    made = store.run(seeded, config=Config())

    def refused(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bonsai.stages.store.manifest.sha256_file", refused)  # a test may run as root, who may read everything
        with pytest.raises(PermissionError):
            store.run(seeded, config=Config())
    assert not (store.root / DAMAGED).exists()
    assert made.folder.is_dir()


def test_a_manifest_that_is_a_folder_is_damage(store: Store) -> None:
    made = store.run(seeded, config=Config())
    (made.folder / MANIFEST).unlink()
    (made.folder / MANIFEST).mkdir()
    assert store.run(seeded, config=Config()).digest == made.digest


@pytest.mark.parametrize("left", ["values.safetensors", MANIFEST])
def test_what_stands_unfinished_under_its_name_is_set_aside(store: Store, left: str) -> None:
    made = store.run(seeded, config=Config())
    (made.folder / MANIFEST).unlink()
    (made.folder / SPARE / MANIFEST).unlink()
    (made.folder / left).write_text("{")
    assert store.find(seeded, config=Config()) is None
    assert store.run(seeded, config=Config()).digest == made.digest


def test_a_file_in_the_place_of_an_artifact_is_set_aside(store: Store) -> None:
    final = store.root / "seeded" / store.key(seeded, {"config": Config()})
    final.parent.mkdir(parents=True)
    final.write_text("no folder")
    assert store.run(seeded, config=Config()).folder.is_dir()


def test_a_file_that_is_not_listed_is_damage(store: Store) -> None:
    made = store.run(seeded, config=Config())
    (made.folder / "training.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactDamaged, match=r"training.safetensors is not listed in the manifest"):
        load_artifact(Number, made.folder)


@pytest.mark.parametrize(("field", "value"), [("record", 9.0), ("files", "0" * 64), ("inputs", {"config": None}), ("seconds", 1e6), ("finished", "today")])
def test_a_manifest_that_was_changed_is_damage(store: Store, field: str, value: object) -> None:
    made = store.run(seeded, config=Config())
    facts = json.loads((made.folder / MANIFEST).read_text())
    if field == "record":
        facts["record"]["value"] = value
    elif field == "files":
        facts["files"]["values.safetensors"] = value
    else:
        facts[field] = value
    (made.folder / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(ArtifactDamaged, match=MANIFEST):
        load_artifact(Number, made.folder)
    del facts["seal"]
    (made.folder / MANIFEST).write_text(json.dumps(facts))
    if field in ("record", "files"):  # in manifests of earlier versions too
        with pytest.raises(ArtifactDamaged, match="than its digest was made from"):
            load_artifact(Number, made.folder)


def test_a_manifest_of_an_earlier_version_is_read(store: Store) -> None:
    made = store.run(seeded, config=Config())
    facts = json.loads((made.folder / MANIFEST).read_text())
    del facts["seal"]
    (made.folder / MANIFEST).write_text(json.dumps(facts))
    assert load_artifact(Number, made.folder) == made


def test_a_record_that_this_version_cannot_read_is_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Text(Artifact):
        text: str

    def earlier(out_dir: Path, config: Config) -> Text:
        return Text(folder=out_dir, text="old")

    def later(out_dir: Path, config: Config) -> Number:
        return Number(folder=out_dir, value=2)

    for function, kind in ((earlier, Text), (later, Number)):
        function.__name__ = "renamed"
        function.__annotations__ = {"return": kind}
    store.run(stage(version=1)(earlier), config=Config())
    assert store.run(stage(version=1)(later), config=Config()).value == 2


def test_an_input_that_was_damaged_since_it_was_found_is_an_error_that_names_it(store: Store) -> None:
    number = store.run(seeded, config=Config())
    flip(number.folder / "values.safetensors", 99)
    with pytest.raises(ArtifactDamaged, match=r"seeded/\w+ is damaged: values.safetensors differs") as damage:
        store.run(clocked, number=number)
    assert damage.value.exit_code == 6
    assert "bonsai run" in str(damage.value)


def test_lineage_is_read_from_the_spare_where_a_manifest_is_damaged(store: Store) -> None:
    made = make_all(store)
    before = trace_lineage(made)
    for name in files_of(store.root):
        if name.endswith(MANIFEST) and SPARE not in name:
            flip(store.root / name, 12)
    assert trace_lineage(made) == before


def test_a_timing_whose_manifest_is_damaged_still_counts(store: Store) -> None:
    folder = store.root / time_engine.__name__ / store.key(time_engine, {"repetition": 4})
    made = store.run(seeded, config=Config())
    manifest = json.loads((made.folder / MANIFEST).read_text()) | {"key": folder.name, "inputs": {"repetition": 4}, "seal": ""}
    (folder / SPARE).mkdir(parents=True)
    (folder / MANIFEST).write_text("{")
    (folder / SPARE / MANIFEST).write_text(json.dumps(manifest))
    assert newest_repetition(store, {}) == 4


def test_others_may_read_what_the_umask_lets_them(store: Store) -> None:
    before = os.umask(0o027)
    try:
        made = store.run(seeded, config=Config())
    finally:
        os.umask(before)
    files = [file for file in made.folder.rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o640}
    assert {folder.stat().st_mode & 0o777 for folder in (made.folder, made.folder / "part", made.folder / SPARE)} == {0o750}


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    time.sleep(1.5 * SETTLED_NS / 1e9)
    before = sha256_file(file)
    seen = file.stat()
    file.write_text("two")
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # the same size and time of writing: the time of the change tells
    assert sha256_file(file) != before


def test_a_training_checkpoint_with_a_flipped_bit_is_not_gone_on_from(tmp_path: Path) -> None:
    parts = {"weights": {"a": torch.arange(64.0)}}
    save_progress(tmp_path, parts, {"step": 1})
    save_progress(tmp_path, parts, {"step": 2})
    (file,) = tmp_path.iterdir()
    assert load_progress(tmp_path)[1] == {"step": 2}  # type: ignore[index]
    for place in (3, 20, 150):
        flip(file, place)
        assert load_progress(tmp_path) is None
        flip(file, place)
    assert load_progress(tmp_path) is not None
