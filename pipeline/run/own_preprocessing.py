"""Data as a run prepares it: images as a library's own weights want them, as far as the recipe does not say how."""

import inspect
from typing import Any

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import LOADERS, source_digest
from bonsai.stages.imports.registry import code_digest, resolve
from bonsai.stages.networks.config import PRETRAINED, RECIPE, ModelConfig
from bonsai.stages.networks.libraries import may_undo_normalisation, preprocess_of
from bonsai.stages.training.progress import say

TAKEN_OVER = ("mean", "std", "resize", "crop", "interpolation")
"""Options of a loader that the library's preprocessing fills in."""
NORMALISATION = ("mean", "std")


def prepare_inputs(recipe: Recipe) -> dict[str, Any]:
    """Return what the stage `prepare` takes.

    Raises:
        ConfigError: The library has no such network, or the data's files cannot be read.
    """
    return {"data": data_of(recipe), "content": source_digest(recipe.data), "task": recipe.task, "task_code": code_digest(recipe.task)}


def data_of(recipe: Recipe) -> DataConfig:
    """Return which images a run prepares, and how.

    Where the network is of timm or torchvision, and starts with weights of a file or of its library, the library's preprocessing is taken over:
    normalisation, crop and interpolation. What the recipe says comes first; the size is the recipe's. A network out of the store was trained on images as
    Bonsai prepares them.

    Raises:
        ConfigError: The library has no such network.
    """
    model, data = recipe.model, recipe.data
    if model.weights is None or model.weights.startswith(RECIPE) or data.name not in LOADERS:
        return data
    known = preprocess_of(model)
    if known is None or data.options.get("channels", known.channels) != known.channels:
        return data
    _tell_other_normalisation(model, data, known)
    takes = inspect.signature(resolve(data.name, LOADERS, "dataset")).parameters
    filled = {key: getattr(known, key) for key in TAKEN_OVER if key in takes and key not in data.options}
    if not filled:
        return data
    shown = ", ".join(f"{key} {value}" for key, value in filled.items())
    say(f"images as the weights of {model.name} want them: {shown}; data.options may say otherwise")
    return data.model_copy(update={"options": {**filled, **data.options}})


def _tell_other_normalisation(model: ModelConfig, data: DataConfig, known: Preprocess) -> None:
    """Warn if the recipe normalises images otherwise than the library's weights want. Most weights in a file get no warning: their training is not known."""
    other = [key for key in NORMALISATION if key in data.options and data.options[key] != getattr(known, key)]
    if other and (model.weights == PRETRAINED or may_undo_normalisation(model)):
        shown = "; ".join(f"{key} {data.options[key]}, not {getattr(known, key)}" for key in other)
        say(f"warning: data.options normalise images otherwise than the library's own weights of {model.name} want them: {shown}")
