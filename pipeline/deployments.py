"""The deployments per shipped recipe: the one table that `bonsai serve`, `prefect.yaml` and the tests agree on."""

from typing import Any

from pipeline.recipe import list_recipes, load_recipe
from profiles.source import Record

COMPRESS = "compress"
FLOWS = "pipeline.prefect_flows"
TIMING_LIMIT = "bonsai-timing"
"""Name of the global concurrency limit that lets one job at a time measure latency."""


class Deployment(Record):
    """What Prefect is told of a recipe."""

    flow: str
    name: str
    description: str
    tags: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def entrypoint(self) -> str:
        """Import path of the flow."""
        return f"{FLOWS}.{self.flow}"


def list_deployments() -> tuple[Deployment, ...]:
    """Return the deployments of every shipped recipe; `prefect.yaml` repeats them for those who run their own workers."""
    recipes = [(name, load_recipe(name)) for name in list_recipes()]
    return tuple(
        Deployment(
            flow=COMPRESS,
            name=name,
            description=f"{recipe.description}: from training to measured engines in packages, one per profile.",
            tags=("bonsai", recipe.model.name, recipe.data.name),
            parameters={"recipe": name, "profile": recipe.profile, "budget": None, "overrides": {}, "layout": "none"},
        )
        for name, recipe in recipes
    )
