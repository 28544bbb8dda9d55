import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import VerificationError
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.store.artifact import Artifact, fingerprint
from bonsai.stages.store.lineage import trace_lineage
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import RESUME, Store, load_artifact, stage

calls: list[int] = []


class Config(Record):
    value: int = 1


class Number(Artifact):
    value: int


@stage(version=1)
def write_number(out_dir: Path, config: Config) -> Number:
    calls.append(config.value)
    (out_dir / "number.txt").write_text(str(config.value))
    return Number(folder=out_dir, value=config.value)


@stage(version=1)
def double(out_dir: Path, number: Number) -> Number:
    (out_dir / "number.txt").write_text(str(2 * int((number.folder / "number.txt").read_text())))
    return Number(folder=out_dir, value=2 * number.value)


@stage(version=1)
def fail_late(out_dir: Path, config: Config) -> Number:
    (out_dir / RESUME).mkdir(exist_ok=True)
    seen = out_dir / RESUME / "epochs"
    seen.write_text(seen.read_text() + "x" if seen.exists() else "x")
    (out_dir / "half.txt").write_text("half")
    if len(seen.read_text()) < 2:
        raise OSError("killed")
    (out_dir / "epochs.txt").write_text(seen.read_text())
    return Number(folder=out_dir, value=0)


def test_a_stage_runs_once_per_distinct_input(store: Store) -> None:
    calls.clear()
    first = store.run(write_number, config=Config(value=3))
    again = store.run(write_number, config=Config(value=3))
    other = store.run(write_number, config=Config(value=4))
    assert calls == [3, 4]
    assert first == again
    assert (first.folder / "number.txt").read_text() == "3"
    assert first.digest != other.digest


def test_an_artifact_is_named_by_what_it_was_made_from(store: Store) -> None:
    made = store.run(double, number=store.run(write_number, config=Config(value=3)))
    assert made.folder == store.root / "double" / made.key
    manifest = json.loads((made.folder / MANIFEST).read_text())
    assert list(manifest["files"]) == ["number.txt"]
    assert [a.artifact.split("/")[0] for a in trace_lineage(made).ancestors] == ["double", "write_number"]
    other = store.run(write_number, config=Config(value=7))
    assert [a.artifact for a in trace_lineage(made, other).ancestors][:2] == [a.artifact for a in trace_lineage(made).ancestors]


def test_the_digest_depends_on_content_and_not_on_the_place(tmp_path: Path) -> None:
    one, two = (Store(tmp_path / name).run(write_number, config=Config()) for name in ("a", "b"))
    assert one.digest == two.digest
    assert one.folder != two.folder


def test_a_failed_stage_leaves_nothing_under_its_name_and_continues(store: Store) -> None:
    with pytest.raises(OSError, match="killed"):
        store.run(fail_late, config=Config())
    assert not (store.root / "fail_late").exists()
    done = store.run(fail_late, config=Config())
    assert (done.folder / "epochs.txt").read_text() == "xx"
    assert not (done.folder / RESUME).exists()


def test_another_version_is_another_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.key(write_number, {"config": Config()})
    monkeypatch.setattr(write_number, "version", 2)
    assert store.key(write_number, {"config": Config()}) != before


def test_another_version_of_a_tool_is_another_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.key(write_number, {"config": Config()})
    monkeypatch.setattr(write_number, "tools", ("torch",))
    assert store.key(write_number, {"config": Config()}) != before


def test_a_users_own_model_is_another_input_once_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_model.py").write_text("one = 1\n")
    config = ModelConfig(name="my_model:factory")
    before = fingerprint(config)
    assert before == fingerprint(config)
    (tmp_path / "my_model.py").write_text("one = 2\n")
    assert fingerprint(config) != before


def test_find_returns_none_before_the_stage_ran(store: Store) -> None:
    assert store.find(write_number, config=Config()) is None
    store.run(write_number, config=Config())
    assert store.find(write_number, config=Config()) is not None


def test_a_lost_file_is_an_error_that_names_it(store: Store) -> None:
    made = store.run(write_number, config=Config())
    (made.folder / "number.txt").unlink()
    with pytest.raises(VerificationError, match=r"number.txt is gone although the manifest lists it"):
        load_artifact(Number, made.folder)


@pytest.mark.parametrize("value", [Path("a"), {"a": 1}, [1], object()])
def test_what_has_no_identity_cannot_enter_a_stage(store: Store, value: object) -> None:
    with pytest.raises(TypeError, match="cannot enter a stage"):
        store.run(write_number, config=value)


def test_fingerprints_tell_tuples_from_their_parts() -> None:
    assert fingerprint((1, 2)) != fingerprint((12,))
    assert fingerprint((1, (2,))) != fingerprint((1, 2))


def test_a_plain_function_is_no_stage(store: Store) -> None:
    def plain(out_dir: Path) -> Number:
        return Number(folder=out_dir, value=0)

    with pytest.raises(TypeError, match="plain is not a stage"):
        store.run(plain)


@pytest.mark.parametrize("mode", ["same", "other"])
def test_processes_that_share_a_store_run_each_stage_once_and_a_killed_one_blocks_nobody(mode: str, tmp_path: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from bonsai.profiles.located_yaml import Record
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Store, stage

class Config(Record):
    value: int

class Number(Artifact):
    value: int

@stage(version=1)
def slow(out_dir: Path, config: Config) -> Number:
    with open(sys.argv[2], "a") as log:
        log.write(f"{config.value}\\n")
    time.sleep(float(sys.argv[4]))
    (out_dir / "number.txt").write_text(str(config.value))
    return Number(folder=out_dir, value=config.value)

@stage(version=1)
def joined(out_dir: Path, numbers: tuple[Number, ...]) -> Number:
    return Number(folder=out_dir, value=sum(number.value for number in numbers))

store, order = Store(Path(sys.argv[1])), [int(digit) for digit in sys.argv[3]]
with store.in_use():
    numbers = {value: store.run(slow, config=Config(value=value)) for value in order}
    print(store.run(joined, numbers=tuple(numbers[value] for value in sorted(numbers))).digest)
"""
    log = tmp_path / "log"
    orders = ["0123"] * 6 if mode == "same" else ["0123", "3210", "1032", "2301", "0312", "3021"]

    def start(order: str, seconds: float = 0.3) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(tmp_path / "store"), str(log), order, str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4])

    killed = start("0123", seconds=60)  # within its first stage, however late the kill comes
    while not log.exists():
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    running = [start(order) for order in orders]
    digests = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0] * len(orders)
    assert len(digests) == 1
    counts = {value: log.read_text().splitlines().count(value) for value in "0123"}
    assert counts == {"0": 2, "1": 1, "2": 1, "3": 1}  # the killed process had begun the first
