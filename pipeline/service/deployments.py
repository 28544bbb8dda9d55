"""The deployments per shipped recipe: the one table that `bonsai serve`, `prefect.yaml` and the tests agree on."""

from typing import Any

from bonsai.pipeline.recipes.recipe import Recipe, list_recipes, load_recipe
from bonsai.profiles.located_yaml import Record

COMPRESS, COMPARE = "compress", "compare"
FLOWS = "bonsai.pipeline.service.flows"
BESIDE = "local-cpu-openvino"
"""Profile that a comparison adds to the recipe's own, if that is another one."""
DEMO = "resnet-edge"
"""The recipe that a first run is suggested with; `make demo` runs it too."""
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
    return tuple(row for name in list_recipes() for row in _deployments_of(name, load_recipe(name)))


def _deployments_of(name: str, recipe: Recipe) -> tuple[Deployment, ...]:
    tags = ("bonsai", recipe.model.name, recipe.data.name)
    given: dict[str, Any] = {"recipe": name, "budget": None, "overrides": {}}
    return (
        Deployment(
            flow=COMPRESS,
            name=name,
            description=f"{recipe.description}: from training to measured engines in packages, one per profile.",
            tags=tags,
            parameters={**given, "profile": None, "layout": "none"},
        ),
        Deployment(
            flow=COMPARE,
            name=name,
            description=f"{recipe.description}: one training for several profiles, side by side in a table. One that fails leaves the others alone.",
            tags=(*tags, "comparison"),
            parameters={**given, "profiles": list(dict.fromkeys((recipe.profile, BESIDE)))},
        ),
    )
