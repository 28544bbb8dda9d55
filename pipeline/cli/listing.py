"""Names and one-line descriptions for `bonsai list`."""

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from bonsai.pipeline.recipes.recipe import SHIPPED, list_recipes
from bonsai.profiles.errors import ConfigError, visible
from bonsai.profiles.loader import list_profiles, load_profile
from bonsai.profiles.located_yaml import read_yaml
from bonsai.profiles.shared_tables import describe_origin, origin_of, read_tables
from bonsai.profiles.table_names import list_tables
from bonsai.stages.backends.registry import BACKENDS
from bonsai.stages.data.registry import LOADERS
from bonsai.stages.networks.factories import FACTORIES, LIBRARIES
from bonsai.stages.training.tracking import TRACKERS


def describe_all(what: str) -> list[tuple[str, str]]:
    """Return (name, description) of every recipe, profile, model, dataset, backend, tracker or latency table."""
    if what == "recipes":
        return [(name, str(read_yaml(SHIPPED / f"{name}.yaml").data["description"])) for name in list_recipes()]
    if what == "profiles":
        loaded = [load_profile(name) for name in list_profiles()]
        return [(profile.name, f"{profile.description}; {profile.asked}") for profile in loaded]
    if what == "tables":
        return [(name, _about(file)) for name, file in list_tables().items()]
    tables: Mapping[str, Mapping[str, str]] = {"models": FACTORIES, "datasets": LOADERS, "backends": BACKENDS, "trackers": TRACKERS}
    return [(name, _first_line(target)) for name, target in tables[what].items()] + (_forms_of_models() if what == "models" else [])


def _about(file: Path) -> str:
    """Return what the tables of a file are of and where they are from, or why it has none."""
    try:
        tables = tuple(read_tables(file).values())
    except ConfigError as error:
        return str(error).splitlines()[0]
    first = tables[0]
    precisions = ", ".join(table.meta.precision for table in tables)
    return visible(f"{origin_of(first).recipe} at {precisions}, {first.meta.threads} thread(s), batch {first.meta.batch}; {describe_origin(first)}")


def _forms_of_models() -> list[tuple[str, str]]:
    """Return how networks are named that are in no list of ours."""
    named = {library: _first_line(module).rstrip(".") for library, module in LIBRARIES.items()}
    listed = {"timm": "timm.list_models()", "torchvision": "torchvision.models.list_models()"}
    return [
        *((f"{library}/NAME", f"{what}, by the name that {listed[library]} has") for library, what in named.items()),
        ("package.module:factory", "your own: a function of in_channels and num_classes, or a class"),
    ]


def _first_line(target: str) -> str:
    """Return the first line of the docstring behind an import string, read from its source so that nothing heavy is imported."""
    module, _, attribute = target.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return (ast.get_docstring(tree) or "").split("\n")[0]
