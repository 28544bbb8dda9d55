"""What timm and torchvision know of their networks, by the name in a recipe."""

import importlib
from types import ModuleType

import torch

from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.networks.config import WEIGHTS_KEY, ModelConfig
from bonsai.stages.networks.factories import LIBRARIES, of_library


def module_of(library: str) -> ModuleType:
    """Return the module with a library's networks; the library is imported here and not before."""
    return importlib.import_module(LIBRARIES[library])


def preprocess_of(model: ModelConfig) -> Preprocess | None:
    """Return how a library's own weights want images of 3 channels prepared, and at which size they were trained; None for a network of no library.

    Raises:
        ConfigError: The library has no such network.
    """
    found = of_library(model.name)
    return module_of(found.library).preprocess(found.model, **model.options) if found is not None else None


def may_undo_normalisation(model: ModelConfig) -> bool:
    """Return whether the library builds this network with a layer that undoes ImageNet's normalisation, and `model.options` do not ask for it."""
    asking = model.model_copy(update={"options": {**model.options, "transform_input": True}})
    return preprocess_of(asking) != preprocess_of(model)


def pretrained_of(model: ModelConfig) -> dict[str, torch.Tensor]:
    """Return the weights that a network's library has of it, by name.

    Raises:
        ConfigError: They can neither be fetched nor lie in the library's cache.
    """
    found = of_library(model.name)
    assert found is not None, "the record refuses `pretrained` for a network of no library"
    with user_code(
        f"{WEIGHTS_KEY}: the pretrained weights of {model.name!r} cannot be had",
        allowed=f"weights that {found.library} has of this network, fetched over a network or kept in its cache by an earlier run",
        fix="run it once where there is a network, or save the weights there and name the file in model.weights",
    ):
        weights: dict[str, torch.Tensor] = module_of(found.library).pretrained(found.model, **model.options)
    return weights
