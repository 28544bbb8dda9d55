import json
import re
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

import bonsai.pipeline.recipes.recipe
import bonsai.profiles.loader
from bonsai.pipeline.cli.json_schema import schema_of
from bonsai.pipeline.cli.main import app

PROFILES = sorted(bonsai.profiles.loader.SHIPPED.glob("*.yaml"))
RECIPES = sorted(bonsai.pipeline.recipes.recipe.SHIPPED.glob("*.yaml"))
EDGE = bonsai.pipeline.recipes.recipe.SHIPPED / "resnet-edge.yaml"
CONFIGS = Path(__file__).parents[3] / "integration" / "configs"


class EditorLoader(yaml.SafeLoader):
    """Reads `5e-4` as a number, as editors do and YAML 1.2 asks."""


EditorLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def faults(what: Literal["profile", "recipe"], text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema_of(what))
    data: Any = yaml.load(text, Loader=EditorLoader)
    return [error.message for error in validator.iter_errors(data)]


@pytest.mark.parametrize("what", ["profile", "recipe"])
def test_the_command_prints_a_valid_schema(what: Literal["profile", "recipe"]) -> None:
    printed = json.loads(CliRunner().invoke(app, ["schema", what]).stdout)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed == schema_of(what)


@pytest.mark.parametrize("file", [*PROFILES, *CONFIGS.glob("*-*.yaml")], ids=lambda file: file.stem)
def test_every_profile_fits_the_schema(file: Path) -> None:
    assert faults("profile", file.read_text()) == []


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_fits_the_schema(file: Path) -> None:
    assert faults("recipe", file.read_text()) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("extends: t4\ntarget: {precison: int8}", "'precison' was unexpected"),
        ("extends: t4\ntarget: {batch: many}", "'many' is not of type 'integer'"),
        ("extends: t4\ntarget: {threads: 0}", "0 is less than the minimum of 1"),
        ("name: mine\ndescription: no parent, no target", "'target' is a required property"),
    ],
)
def test_a_broken_profile_does_not_fit(text: str, fault: str) -> None:
    assert any(fault in found for found in faults("profile", text)), faults("profile", text)


def test_a_broken_recipe_does_not_fit() -> None:
    broken = EDGE.read_text().replace("epochs: 20", "epochs: many")
    assert any("'many'" in found for found in faults("recipe", broken))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{qat: sometimes}", "'sometimes' is not one of ['when_needed', 'always', 'never']"),
        ("{epochs: 0}", "0 is less than the minimum of 1"),
        ("{mixed: {layers: 3}}", "not valid under any of the given schemas"),
        ("{mixed: {images: 256, max_layers: 3}, distill: {weight: 0.5, temperature: 4}, keep_float: [conv1, 'layer1.*'], max_drop: 0}", None),
        ("{mixed: null, distill: null}", None),
    ],
)
def test_the_policy_of_quantisation_is_in_the_schema(text: str, fault: str | None) -> None:
    found = faults("recipe", EDGE.read_text().replace("quantize: {qat: always, epochs: 4, lr: 0.005}", f"quantize: {text}"))
    assert any(fault in message for message in found) if fault else found == [], found
