"""`BONSAI_IMPORTS`: which import strings are followed."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.profiles.errors import ConfigError
from bonsai.stages.imports.import_policy import VARIABLE
from bonsai.stages.imports.registry import resolve

OWN = "bonsai.stages.networks.cifar_resnet:resnet8"
OTHER = "bonsai.stages.networks.cifar_resnet:resnet20"
RECIPE = "name: mine\ndescription: a test\nmodel: {{name: '{model}'}}\ndata: {{name: '{data}'}}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(model=OWN, data="digits"))
    return str(file)


@pytest.mark.parametrize("said", ["", "allow"])
def test_every_import_string_is_followed_by_default(said: str, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, said)
    assert load_recipe(recipe, {"model.name": OTHER}).model.name == OTHER


@pytest.mark.parametrize("overrides", [{}, {"model.name": OWN}, {"model.name": "resnet8"}, {"training.epochs": 9}])
def test_recipes_follows_what_the_file_says(overrides: Mapping[str, Any], recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "recipes")
    assert load_recipe(recipe, overrides).model.name in (OWN, "resnet8")


@pytest.mark.parametrize(
    ("overrides", "place", "given", "said"),
    [
        ({"model.name": OTHER}, "--set model.name", OTHER, OWN),
        ({"model": {"name": OTHER}}, "--set model", OTHER, OWN),
        ({"data.name": "os:getcwd"}, "--set data.name", "os:getcwd", "digits"),
        ({"data.name": OWN}, "--set data.name", OWN, "digits"),
    ],
)
def test_recipes_refuses_an_override_that_names_other_code(
    overrides: Mapping[str, Any], place: str, given: str, said: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "recipes")
    expected = f"(?s){place}: an override may not name code here\n  given:   {re.escape(given)}, .*allowed: what the recipe's own file says: {said}"
    with pytest.raises(ConfigError, match=expected):
        load_recipe(recipe, overrides)


def test_deny_refuses_what_a_file_says_too(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "deny")
    with pytest.raises(ConfigError, match=r"recipe.yaml:3: import strings are not followed here"):
        load_recipe(recipe)
    with pytest.raises(ConfigError, match="tracker: import strings are not followed here"):
        resolve("os:getcwd", {}, "tracker")
    assert load_recipe(recipe, {"model.name": "resnet8"}).model.name == "resnet8"


def test_nothing_of_a_refused_package_is_imported(tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "recipes")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger_package").mkdir()
    (tmp_path / "stranger_package" / "__init__.py").write_text("raise SystemExit('imported')")
    with pytest.raises(ConfigError, match="an override may not name code here"):
        load_recipe(recipe, {"model.name": "stranger_package.inner:build"})
    assert "stranger_package" not in sys.modules


def test_another_word_is_refused_with_the_three(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "no")
    with pytest.raises(ConfigError, match=r"BONSAI_IMPORTS is not usable\n  given:   no\n  allowed: allow, recipes, deny"):
        load_recipe(recipe)
