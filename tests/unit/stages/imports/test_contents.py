"""Contents are hashed once: in this process, and where that took long in the next one too."""

import json
import os
from pathlib import Path

import pytest

from bonsai.stages.imports import contents
from bonsai.stages.imports.contents import digest_of, keep_hashes


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(contents, "_hashed", {})
    monkeypatch.setattr(contents, "_kept", contents._Kept())
    monkeypatch.setattr(contents, "SETTLED_SECONDS", -1.0)  # else what a test has just written would be read again
    found = {f"{number:04}": tmp_path / f"{number}.bin" for number in range(2500)}
    for name, file in found.items():
        file.write_text(name)
    return found


def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    whole = contents._sha256

    def noting(file: Path) -> str:
        read.append(file)
        return whole(file)

    monkeypatch.setattr(contents, "_sha256", noting)
    return read


def test_threads_change_nothing_and_every_file_is_read_once(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read = readings(monkeypatch)
    found = digest_of(files, "data")
    assert sorted(read) == sorted(files.values())
    monkeypatch.setattr(contents, "THREADS", 1)
    assert digest_of(dict(reversed(files.items())), "data") == found
    assert len(read) == len(files)
    files["0007"].write_text("changed")
    assert digest_of(files, "data") != found
    assert len(read) == len(files) + 1


def test_hashes_that_took_long_are_kept_for_the_next_process(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, cache = readings(monkeypatch), tmp_path / "hashes.json"
    keep_hashes(cache)
    found = digest_of(files, "data")
    assert not cache.exists()  # a few bytes are hashed again in no time
    monkeypatch.setattr(contents, "WORTH_KEEPING", 1)
    digest_of(files, "data")
    assert len(json.loads(cache.read_text())) == len(files)
    contents._hashed.clear()  # as in the next process
    keep_hashes(cache)
    os.utime(files["0003"], (1, 1))
    assert digest_of(files, "data") == found
    assert len(read) == len(files) + 1


@pytest.mark.parametrize("text", ["", "{", "[[1]]", "[1]", '{"a": 1}'])
def test_damaged_notes_of_hashes_are_no_error(text: str, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "hashes.json").write_text(text)
    keep_hashes(tmp_path / "hashes.json")
    assert digest_of(files, "data")
