"""A task of somebody's own, `package.module:Task`, is followed from a recipe and never from a package."""

from pathlib import Path

import pytest
from own_task import LENGTH, Length
from tiny_package import make_package, reseal
from walking import TINY

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.profiles.errors import ConfigError
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.delivery.triton import model_config
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.imports.import_policy import VARIABLE
from bonsai.stages.tasks.registry import learning_of, packaged_task, task_named
from bonsai.stages.tasks.regression.learning import RegressionLearning
from bonsai.stages.training.config import TrainConfig

CODE = """
from bonsai.stages.tasks.regression.judging import Regression

class Own(Regression):
    pass

raise_at_import = {raises}
if raise_at_import:
    raise RuntimeError("run")
"""


def recipe_of(folder: Path, task: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(f"task: {task}\n{TINY.read_text()}")
    return file


def test_an_object_or_a_class_may_be_named() -> None:
    assert task_named("own_task:LENGTH") is LENGTH
    assert isinstance(task_named("own_task:Length"), Length)
    assert isinstance(learning_of("own_task:LENGTH", TrainConfig()), RegressionLearning)


def test_a_recipe_names_a_task_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_the_recipe.py").write_text(CODE.format(raises=False))
    recipe = load_recipe(str(recipe_of(tmp_path, "beside_the_recipe:Own")))
    assert task_named(recipe.task).metric.name == "rmse"


def test_names_that_are_neither_known_nor_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no task 'regresion'"):
        load_recipe(str(recipe_of(tmp_path, "regresion")))
    with pytest.raises(ConfigError, match=r"did you mean 'regression'"):
        task_named("regresion")
    with pytest.raises(ConfigError, match="cannot be imported"):
        task_named("no_such_module:Task")


def test_the_import_policy_holds_for_tasks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(recipe_of(tmp_path, "own_task:LENGTH"))
    monkeypatch.setenv(VARIABLE, "recipes")
    load_recipe(file)
    with pytest.raises(ConfigError, match="an override may not name code here"):
        load_recipe(str(TINY), {"task": "own_task:LENGTH"})
    monkeypatch.setenv(VARIABLE, "deny")
    with pytest.raises(ConfigError, match="import strings are not followed here"):
        load_recipe(file)


def test_a_packages_own_task_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "strangers_task.py").write_text(CODE.format(raises=True))
    monkeypatch.syspath_prepend(str(code))
    (folder := tmp_path / "package").mkdir()
    make_package(folder)
    reseal(folder, lambda facts: facts["recipe"].update(task="strangers_task:Own"))  # type: ignore[attr-defined]
    reseal(folder, lambda facts: facts.update(outputs=[{"name": "logits", "shape": [3], "labelled": True}]))
    manifest = read_intact(folder)
    assert manifest.task == "strangers_task:Own"
    assert packaged_task(manifest.task) is None
    assert any("gives the golden outputs" in line for line in verify_package(folder))
    assert "logits" in model_config(manifest)
