"""Where a run works; a pytest folder lies in the temporary folder, as a worker's does."""

from pathlib import Path

import pytest

from bonsai.pipeline.service.package_server import URL_VARIABLE
from bonsai.pipeline.service.place import find_store, is_scratch, settle
from bonsai.profiles.errors import ConfigError

SERVED = {URL_VARIABLE: "http://127.0.0.1:4201"}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path / "scratch")
    return tmp_path / "scratch"


@pytest.mark.parametrize("said", [{}, {"BONSAI_STORE": ""}, {"BONSAI_STORE": "artifacts"}])
def test_results_are_not_written_into_a_temporary_folder(said: dict[str, str], scratch: Path) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)BONSAI_STORE names no folder.*in {scratch}.*start the worker with BONSAI_STORE=/data/bonsai"):
        find_store(said)
    assert list(scratch.iterdir()) == []


def test_a_stated_store_is_taken_wherever_it_is(scratch: Path) -> None:
    assert find_store({"BONSAI_STORE": str(scratch / "store")}) == scratch / "store"
    assert find_store(SERVED) == scratch / "artifacts"


def test_a_folder_that_is_not_temporary_is_taken(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    assert not is_scratch(scratch, {})
    assert find_store({}) == scratch / "artifacts"


def test_relative_files_start_at_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    recipe = tmp_path / "project" / "mine.yaml"
    recipe.touch()
    settle(str(recipe), {})
    assert Path.cwd() == tmp_path / "project"


@pytest.mark.parametrize("recipe", ["resnet-edge", "/nowhere/mine.yaml"])
def test_without_a_file_the_working_folder_stays(recipe: str, scratch: Path) -> None:
    settle(recipe, {})
    assert Path.cwd() == scratch


def test_a_relative_recipe_that_is_not_there_is_refused_with_the_folder(scratch: Path) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)a relative path leads nowhere on a worker.*mine.yaml, looked for in {scratch}"):
        settle("mine.yaml", {})
    (scratch / "mine.yaml").touch()
    settle("mine.yaml", {})


def test_what_is_served_runs_where_serve_was_started(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    settle(str(tmp_path / "mine.yaml"), SERVED)
    assert Path.cwd() == scratch
