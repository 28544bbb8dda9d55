"""The device's cache: a file is finished where its hash is right, goes on where it was cut off, and is not used where it was changed."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from bonsai.stages.backends.remote.files import DamagedFile, Files, Sent, files_here, sent


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "cache", limit_bytes=1000)


def a_file(folder: Path, content: bytes, name: str = "engine.onnx") -> Sent:
    (folder / name).write_bytes(content)
    return sent(folder / name)


def test_a_file_that_was_cut_off_goes_on(files: Files, tmp_path: Path) -> None:
    content = b"0123456789" * 9
    file = a_file(tmp_path, content)
    assert files.missing([file]) == {file.sha256: 0}
    files.append(file, 0, content[:40])
    assert files.missing([file]) == {file.sha256: 40}
    files.append(file, 40, content[40:])
    assert files.missing([file]) == {}
    assert files.path_of(file).read_bytes() == content
    assert files.path_of(file).name == "engine.onnx"


def test_an_empty_file_arrives(files: Files, tmp_path: Path) -> None:
    file = a_file(tmp_path, b"")
    files.append(file, 0, b"")
    assert files.path_of(file).read_bytes() == b""


def test_a_part_that_does_not_follow_is_refused(files: Files, tmp_path: Path) -> None:
    file = a_file(tmp_path, b"0123456789")
    for offset, data in ((5, b"56789"), (0, b"0123456789+")):
        with pytest.raises(ConnectionError, match="a part of the file is missing"):
            files.append(file, offset, data)


def test_what_arrives_damaged_is_removed(files: Files, tmp_path: Path) -> None:
    file = a_file(tmp_path, b"0123456789")
    with pytest.raises(DamagedFile, match=r"engine\.onnx arrived damaged"):
        files.append(file, 0, b"0123456780")
    assert files.missing([file]) == {file.sha256: 0}


def test_an_engine_that_was_changed_is_not_used(files: Files, tmp_path: Path) -> None:
    file = a_file(tmp_path, b"0123456789")
    files.append(file, 0, b"0123456789")
    place = files.path_of(file)
    times = place.stat()
    place.write_bytes(b"9876543210")
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))  # as one who hides it
    with pytest.raises(DamagedFile, match=r"engine\.onnx was changed on the device"):
        files.path_of(file)
    assert files.missing([file]) == {file.sha256: 0}


@pytest.mark.parametrize(
    ("name", "digest"), [("x", "a"), ("x", "../../" + "a" * 58), ("x", "a" * 64 + "\n"), *((name, "a" * 64) for name in ("../x", "/x", "x.part", "", ".."))]
)
def test_no_name_of_a_file_leads_out_of_a_folder(name: str, digest: str) -> None:
    with pytest.raises(ValidationError, match=r"no name of a file|should match"):
        Sent(name=name, sha256=digest, size=1)


def test_above_its_limit_the_cache_loses_what_was_used_longest_ago(files: Files, tmp_path: Path) -> None:
    oldest, older, newer, used = kept = [a_file(tmp_path, bytes([number]) * 400, f"{number}.onnx") for number in range(4)]
    for age, file in enumerate(kept):
        files.append(file, 0, (tmp_path / file.name).read_bytes())
        os.utime(files.path_of(file), (1000 + age, 1000 + age))
    files.path_of(older)  # used just now
    files.make_room([oldest])
    assert set(files.missing(kept)) == {newer.sha256, used.sha256}


def test_what_was_built_stays_in_the_cache(files: Files) -> None:
    with files.work_folder() as work:
        (Path(work) / "engine.plan").write_bytes(b"plan")
        file = files.take(Path(work) / "engine.plan")
        assert not (Path(work) / "engine.plan").exists()
    assert files.path_of(file).read_bytes() == b"plan"


def test_work_folders_of_killed_agents_are_removed(files: Files, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "work" / "left"
    left.mkdir()
    os.utime(left, (0, 0))
    with files.work_folder() as work:
        assert not left.exists()
        assert Path(work).exists()


def test_the_environment_says_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_DEVICE_CACHE", str(tmp_path / "there"))
    files_here()
    assert (tmp_path / "there" / "files").is_dir()
