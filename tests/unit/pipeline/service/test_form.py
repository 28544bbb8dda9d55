"""What a server takes as the flows' parameters, by the schema that the deployments carry."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bonsai.pipeline.recipes.recipe import list_recipes
from bonsai.pipeline.service.deployments import Deployment, list_deployments
from bonsai.pipeline.service.form import with_budget
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import list_profiles


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))  # Prefect makes its folder when it is first imported
    import bonsai.pipeline.service.flows

    return bonsai.pipeline.service.flows


def errors_of(flows: ModuleType, flow: str, parameters: dict[str, Any]) -> list[str]:
    """Return what the server finds wrong when a run is submitted."""
    from prefect.utilities.schema_tools import validate

    schema = getattr(flows, flow).parameters.model_dump_for_openapi()
    return [error.json_path for error in validate(parameters, schema, raise_on_error=False, preprocess=True)]


@pytest.mark.parametrize("row", list_deployments(), ids=lambda row: f"{row.flow}/{row.name}")
def test_what_a_deployment_gives_fits_its_flow(flows: ModuleType, row: Deployment) -> None:
    assert errors_of(flows, row.flow, row.parameters) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", "my/recipe.yaml"),
        ("profile", None),
        ("profile", "rtx-4090"),
        ("profile", ["local-cpu", "t4"]),
        ("profile", "/data/camera.yml"),
        ("profile", ["local-cpu", "camera.yaml"]),
        ("budget", None),
        ("budget", 0.3),
        ("budget", 1),
        ("overrides", {"quantize.epochs": 2}),
        ("layout", "triton"),
    ],
)
def test_a_name_that_ships_and_a_file_of_ones_own_are_taken(flows: ModuleType, name: str, value: object) -> None:
    assert errors_of(flows, "compress", {"recipe": "resnet-edge", "profile": "local-cpu", name: value}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", "resnet-egde"),
        ("profile", "rtx4090"),
        ("profile", ["local-cpu", "rtx4090"]),
        ("profile", []),
        ("profile", "camera.txt"),
        ("budget", 0),
        ("budget", 1.5),
        ("budget", "half"),
        ("overrides", ["quantize.epochs"]),
        ("layout", "torchserve"),
    ],
)
def test_a_typo_is_refused_before_anything_runs(flows: ModuleType, name: str, value: object) -> None:
    assert errors_of(flows, "compress", {"recipe": "resnet-edge", "profile": "local-cpu", name: value}) == [f"$.{name}"]


def test_the_form_offers_every_recipe_and_profile_that_ships(flows: ModuleType) -> None:
    fields = flows.compress.parameters.model_dump_for_openapi()["properties"]
    assert [(tab["title"], tab.get("enum")) for tab in fields["recipe"]["anyOf"]] == [("shipped", list_recipes()), ("a file of your own", None)]
    assert [tab["title"] for tab in fields["profile"]["anyOf"]] == ["the recipe's own", "one", "several", "a file of your own", "several, with files"]
    assert fields["profile"]["anyOf"][1]["enum"] == fields["profile"]["anyOf"][2]["items"]["enum"] == list_profiles()
    assert fields["layout"]["enum"] == ["none", "triton", "ort"]
    assert all(field["description"] for field in fields.values())


def test_a_budget_takes_the_place_of_the_profiles() -> None:
    assert with_budget({"quantize.epochs": 2}, None) == {"quantize.epochs": 2}
    assert with_budget({"quantize.epochs": 2}, 0.3) == {"quantize.epochs": 2, "profile.budget.latency": 0.3, "profile.budget.latency_ms": None}


def test_a_budget_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the budget is given twice\n  given:   budget 0.3, profile.budget.latency_ms 2\n"):
        with_budget({"profile.budget.latency_ms": 2}, 0.3)


@pytest.mark.parametrize(
    ("profiles", "wrong"),
    [(["local-cpu", "t4"], False), (["local-cpu", "camera.yaml"], False), (["local-cpu", "rtx4090"], True), ("local-cpu", True), ([], True)],
)
def test_a_comparison_takes_a_list_of_profiles(flows: ModuleType, profiles: object, wrong: bool) -> None:
    assert bool(errors_of(flows, "compare", {"recipe": "resnet-edge", "profiles": profiles})) is wrong
