import subprocess
import sys
from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.stages.imports.registry import CODE_PATH, make_importable, resolve

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(CODE_PATH, "")


def test_a_module_of_the_folder_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "stranger_one.py").write_text("def build(): return 1\n")
    make_importable(tmp_path, "stranger_one:build")
    assert resolve("stranger_one:build", {}, "model")() == 1
    assert sys.path[-1] == str(tmp_path)


def test_a_child_process_finds_it_too(tmp_path: Path) -> None:
    (tmp_path / "stranger_four.py").write_text("def build(): return 4\n")
    make_importable(tmp_path)
    code = "from bonsai.stages.imports.registry import resolve; print(resolve('stranger_four:build', {}, 'model')())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout == "4\n"


@pytest.mark.parametrize("name", ["code", "torch"])
def test_a_module_that_another_one_hides_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("def build(): return 1\n")
    with pytest.raises(ConfigError, match=rf"(?s){name}:build: the module of this name.* is hidden by another one.*do:      rename the module"):
        make_importable(tmp_path, f"{name}:build")


def test_a_second_module_of_one_name_is_refused_in_one_process(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "stranger_two.py").write_text("def build(): return 1\n")
    make_importable(tmp_path / "a", "stranger_two:build")
    with pytest.raises(ConfigError, match="is hidden by another one"):
        make_importable(tmp_path / "b", "stranger_two:build")


def test_an_error_in_the_users_module_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "stranger_three.py").write_text("one = 1\ntwo = one / 0\n")
    make_importable(tmp_path)
    with pytest.raises(ConfigError, match=r"ZeroDivisionError: division by zero, .*stranger_three\.py:2\)"):
        resolve("stranger_three:build", {}, "model")


def test_a_missing_module_says_where_it_was_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"(?s)No module named 'stranger_none'.*a file in the recipe's folder or the working directory"):
        resolve("stranger_none:build", {}, "model")
