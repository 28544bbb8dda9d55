"""The flows' parameters, as a server checks them and the UI's form offers them: what ships to choose from, beside files of one's own.

Every alternative of an `anyOf` is a tab of the form, named by its `title`. Nothing here imports Prefect.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from bonsai.pipeline.recipes.recipe import list_recipes
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.loader import list_profiles

FILE = {"type": "string", "pattern": r"\.ya?ml$"}
ANY_PROFILE = {"anyOf": [{"type": "string", "enum": list_profiles(), "title": "shipped"}, {**FILE, "title": "file"}]}

RecipeChoice = Annotated[
    str, WithJsonSchema({"anyOf": [{"type": "string", "enum": list_recipes(), "title": "shipped"}, {**FILE, "title": "a file of your own"}]})
]
ProfileChoice = Annotated[
    str | list[str] | None,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "null", "title": "the recipe's own"},
                {"type": "string", "enum": list_profiles(), "title": "one"},
                {"type": "array", "items": {"type": "string", "enum": list_profiles()}, "minItems": 1, "title": "several"},
                {**FILE, "title": "a file of your own"},
                {"type": "array", "items": ANY_PROFILE, "minItems": 1, "title": "several, with files"},
            ]
        }
    ),
]
ProfilesChoice = Annotated[
    list[str],
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "enum": list_profiles()}, "minItems": 1, "title": "shipped"},
                {"type": "array", "items": ANY_PROFILE, "minItems": 1, "title": "with files of your own"},
            ]
        }
    ),
]
BudgetChoice = Annotated[
    float | None,
    Field(gt=0, le=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "null", "title": "the profile's own"},
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "title": "fraction of the dense network's latency"},
            ]
        }
    ),
]
LayoutChoice = Literal["none", "triton", "ort"]
Overrides = dict[str, Any]


def with_budget(overrides: Mapping[str, Any], budget: float | None) -> dict[str, Any]:
    """Return overrides that give every profile the budget, a fraction of the dense network's latency; as they are if it is None.

    Raises:
        ConfigError: They give one already.
    """
    if budget is None:
        return dict(overrides)
    keys = ("profile.budget.latency", "profile.budget.latency_ms")
    for key in keys:
        if key in overrides:
            raise ConfigError(
                describe("the budget is given twice", given=f"budget {budget}, {key} {overrides[key]}", allowed="one of them", fix=f"drop budget, or {key}")
            )
    return {**overrides, keys[0]: budget, keys[1]: None}
