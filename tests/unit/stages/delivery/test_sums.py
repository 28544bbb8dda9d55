import subprocess
from pathlib import Path

import pytest

from bonsai.stages.delivery.sums import SUMS, read_sums, require_sums, write_sums
from bonsai.stages.errors import VerificationError
from bonsai.stages.store.artifact import sha256_file


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("engine.plan", "with blank.svg", "ümlaut/card.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    write_sums(tmp_path)
    return tmp_path


def test_sha256sum_accepts_what_is_written(folder: Path) -> None:
    done = sha256sum(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["engine.plan: OK", "with blank.svg: OK", "ümlaut/card.md: OK"]


def test_sha256sum_sees_a_changed_byte(folder: Path) -> None:
    (folder / "engine.plan").write_bytes(b"engine.plaN")
    assert sha256sum(folder).returncode == 1


def test_what_sha256sum_writes_is_read(folder: Path) -> None:
    written = read_sums(folder)
    for option in ("--text", "--binary"):
        (folder / SUMS).write_bytes(subprocess.run(["sha256sum", option, *written], cwd=folder, capture_output=True, check=True).stdout)
        assert read_sums(folder) == written
    assert written["engine.plan"] == sha256_file(folder / "engine.plan")


def test_an_untouched_folder_passes(folder: Path) -> None:
    require_sums(folder, read_sums(folder))


@pytest.mark.parametrize("line", ["engine.plan", "abc  engine.plan", f"{'0' * 64}engine.plan", ""])
def test_a_line_that_is_no_checksum_is_named(folder: Path, line: str) -> None:
    (folder / SUMS).write_text((folder / SUMS).read_text() + line + "\n")
    with pytest.raises(VerificationError, match=f"{SUMS}:4: not a checksum"):
        read_sums(folder)
