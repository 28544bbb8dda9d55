"""What finished runs used of a store."""

from pathlib import Path

import pytest

from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.finished import FINISHED, FinishedRun, is_whole, recall, remember
from bonsai.stages.store.store import Store, stage

RUN = FinishedRun(key="ab12", packages=("package/1",), artifacts={"package/1": "d1", "measure/2": "d2"}, warnings=("warning: few images",))


@stage(version=1)
def write(out_dir: Path, text: str) -> Artifact:
    (out_dir / "text.txt").write_text(text)
    return Artifact(folder=out_dir)


def test_a_run_is_recalled_as_it_was_remembered(tmp_path: Path) -> None:
    remember(tmp_path, RUN)
    assert recall(tmp_path, "ab12") == RUN.sealed
    assert recall(tmp_path, "cd34") is None


def test_no_flipped_byte_of_a_record_is_believed(tmp_path: Path) -> None:
    remember(tmp_path, RUN)
    file = tmp_path / FINISHED / "ab12.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(bytes([*whole[:place], whole[place] ^ 1, *whole[place + 1 :]]))
        found = recall(tmp_path, "ab12")
        assert found is None or found == RUN.sealed  # white space between two fields
    file.write_bytes(b"")
    assert recall(tmp_path, "ab12") is None


def test_a_record_under_another_key_is_not_believed(tmp_path: Path) -> None:
    remember(tmp_path, RUN)
    (tmp_path / FINISHED / "ab12.json").rename(tmp_path / FINISHED / "cd34.json")
    assert recall(tmp_path, "cd34") is None


@pytest.mark.parametrize("damage", [lambda file: file.write_text("b"), lambda file: file.unlink(), lambda file: (file.parent / "more.txt").touch()])
def test_artifacts_are_whole_until_a_file_of_theirs_differs(store: Store, damage: object) -> None:
    made = store.run(write, text="a")
    other = store.run(write, text="other")
    artifacts = {f"write/{artifact.key}": artifact.digest for artifact in (made, other)}
    assert is_whole(store.root, artifacts)
    damage(made.folder / "text.txt")  # type: ignore[operator]
    assert not is_whole(store.root, artifacts)
    assert is_whole(store.root, {f"write/{other.key}": other.digest})


def test_another_artifact_under_the_same_name_is_not_the_one(store: Store) -> None:
    made = store.run(write, text="a")
    assert not is_whole(store.root, {f"write/{made.key}": "another digest"})
    assert not is_whole(store.root, {"write/0000": made.digest})
