"""`bonsai list` and `bonsai schema`: what can be named, and what can be written."""

import json
from enum import Enum
from typing import Annotated

import typer


class Listing(str, Enum):
    """What `bonsai list` can list."""

    recipes = "recipes"
    profiles = "profiles"
    models = "models"
    datasets = "datasets"
    backends = "backends"
    trackers = "trackers"
    tables = "tables"


class Described(str, Enum):
    """What `bonsai schema` can describe."""

    profile = "profile"
    recipe = "recipe"


def list_names(what: Annotated[Listing, typer.Argument(help="What to list.")]) -> None:
    """List profiles, recipes, models and the like.

    Example: bonsai list profiles
    """
    from bonsai.pipeline.cli.listing import describe_all

    for name, description in describe_all(what.value):
        typer.echo(f"{name:23} {description}")


def schema(what: Annotated[Described, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON schema of profiles or recipes.

    Editors check and complete YAML by it.

    Example: bonsai schema profile > profile.schema.json
             and in a profile:
             # yaml-language-server: $schema=profile.schema.json
    """
    from bonsai.pipeline.cli.json_schema import schema_of

    typer.echo(json.dumps(schema_of(what.value), indent=2))
