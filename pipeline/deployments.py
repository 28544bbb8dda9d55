"""One deployment per shipped recipe: the one table that `bonsai serve`, `prefect.yaml` and the tests agree on."""

from typing import Any

from pipeline.recipe import list_recipes, load_recipe
from profiles.source import Record

FLOW = "compress"
ENTRYPOINT = f"pipeline.tasks.{FLOW}"


class Deployment(Record):
    """What Prefect is told of a recipe."""

    name: str
    description: str
    tags: tuple[str, ...]
    parameters: dict[str, Any]


def list_deployments() -> tuple[Deployment, ...]:
    """Return a deployment per shipped recipe; `prefect.yaml` repeats them for those who run their own workers."""
    recipes = [(name, load_recipe(name)) for name in list_recipes()]
    return tuple(
        Deployment(
            name=name,
            description=recipe.description,
            tags=("bonsai", recipe.model.name, recipe.data.name),
            parameters={"recipe": name, "profile": recipe.profile, "overrides": {}},
        )
        for name, recipe in recipes
    )
