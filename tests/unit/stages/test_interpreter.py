import subprocess
from pathlib import Path

import pytest

from bonsai.stages import interpreter


@pytest.fixture(params=[True, False], ids=["-P", "as in Python 3.10"])
def hiding(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with a module that would hide one of Python's."""
    monkeypatch.setattr(interpreter, "HAS_SAFE_PATH", request.param)
    (tmp_path / "json.py").write_text("raise SystemExit('hidden')\n")
    return tmp_path


def said(command: list[str], folder: Path, told: str = "") -> str:
    done = subprocess.run(command, cwd=folder, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_module_is_run_and_nothing_in_the_working_directory_hides_what_it_imports(hiding: Path) -> None:
    assert '"a": 1' in said(interpreter.run_module("json.tool"), hiding, '{"a": 1}')


def test_a_script_is_run_and_nothing_beside_it_hides_what_it_imports(hiding: Path) -> None:
    (hiding / "script.py").write_text("import json, sys\nprint(json.dumps(len(sys.argv)), __name__)\n")
    assert said(interpreter.run_file(hiding / "script.py"), hiding) == "1 __main__"


def test_code_is_run_with_its_arguments(hiding: Path) -> None:
    assert said(interpreter.run_code("import json, sys; print(json.dumps(sys.argv[1:]))", "7"), hiding) == '["7"]'
