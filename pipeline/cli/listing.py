"""Names and one-line descriptions for `bonsai list`."""

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from bonsai.pipeline.recipes.recipe import SHIPPED, list_recipes
from bonsai.profiles.loader import list_profiles, load_profile
from bonsai.profiles.located_yaml import read_yaml
from bonsai.stages.backends.registry import BACKENDS
from bonsai.stages.data.registry import LOADERS
from bonsai.stages.networks.factories import FACTORIES, LIBRARIES
from bonsai.stages.training.tracking import TRACKERS


def describe_all(what: str) -> list[tuple[str, str]]:
    """Return (name, description) of every recipe, profile, model, dataset, backend or tracker."""
    if what == "recipes":
        return [(name, str(read_yaml(SHIPPED / f"{name}.yaml").data["description"])) for name in list_recipes()]
    if what == "profiles":
        loaded = [load_profile(name) for name in list_profiles()]
        return [(profile.name, f"{profile.description}; {profile.budget}") for profile in loaded]
    tables: Mapping[str, Mapping[str, str]] = {"models": FACTORIES, "datasets": LOADERS, "backends": BACKENDS, "trackers": TRACKERS}
    return [(name, _first_line(target)) for name, target in tables[what].items()] + (_forms_of_models() if what == "models" else [])


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
