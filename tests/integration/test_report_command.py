"""`bonsai report`, from the real command line."""

import subprocess
import sys
from pathlib import Path

from tiny_package import reseal


def report(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bonsai", "report", *arguments], capture_output=True, text=True, check=False)


def test_a_package_is_reported_and_left_as_it_was(package: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in package.iterdir()}
    done = report(str(package), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "out" / "report.html"), str(tmp_path / "out" / "report.md")]
    assert (tmp_path / "out" / "report.md").read_text().startswith("# tiny--local-cpu\n")
    assert {file: file.read_bytes() for file in package.iterdir()} == before


def test_what_is_no_package_ends_with_code_2_and_writes_nothing(package: Path, tmp_path: Path) -> None:
    done = report(str(package), str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "no package, for it has no manifest.json" in done.stderr
    assert "Traceback" not in done.stderr
    inside = report(str(package), "--out", str(package / "reports"))
    assert inside.returncode == 2
    assert "lies in a package, which is sealed" in inside.stderr
    assert not (tmp_path / "out").exists()


def test_a_changed_package_ends_with_code_6(package: Path, tmp_path: Path) -> None:
    (package / "MODEL_CARD.md").write_text("other")
    done = report(str(package), "--out", str(tmp_path / "out"))
    assert done.returncode == 6
    assert "MODEL_CARD.md: its sha256 is not the manifest's" in done.stderr


def test_a_package_of_an_older_schema_is_refused(package: Path, tmp_path: Path) -> None:
    manifest = package / "manifest.json"
    reseal(package)
    manifest.write_text(manifest.read_text().replace('"schema_version": 4', '"schema_version": 2'))
    done = report(str(package), "--out", str(tmp_path / "out"))
    assert done.returncode == 6
    assert "given:   schema 2" in done.stderr
