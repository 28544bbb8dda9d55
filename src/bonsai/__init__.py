"""Bonsai's Python interface.

from bonsai import compress
packages = compress("resnet-edge", "local-cpu", {"quantize.epochs": 2})
comparison = compare("resnet-edge", ["local-cpu", "rtx-4090"])
network = load("artifacts/packages/resnet-edge--local-cpu")  # a plain nn.Module

In a training loop of your own:

pruner = Pruner(model, optimizer, images, latency_ms=4.0, steps=total_steps)  # cuts the network while you train it
model = quantize(model, images, calibration=loader)  # computes as the INT8 engine will
package = deploy(model, images, latency_ms=4.0, evaluate=evaluate, samples=loader, reference=dense)
"""

import importlib
from typing import TYPE_CHECKING, Any

import bonsai.stages  # noqa: F401  # its import hook, which data workers need that know nothing else of Bonsai
from bonsai.stages.imports.training_extra import explain_missing

if TYPE_CHECKING:
    from bonsai.pipeline.compare.comparing import compare
    from bonsai.pipeline.loop.deploy import deploy
    from bonsai.pipeline.loop.pruner import Pruner
    from bonsai.pipeline.loop.quantize import quantize
    from bonsai.pipeline.run.flow import compress
    from bonsai.pipeline.run.load import load

__all__ = ["Pruner", "compare", "compress", "deploy", "load", "quantize"]
HOMES = {
    "Pruner": "bonsai.pipeline.loop.pruner",
    "compare": "bonsai.pipeline.compare.comparing",
    "compress": "bonsai.pipeline.run.flow",
    "deploy": "bonsai.pipeline.loop.deploy",
    "load": "bonsai.pipeline.run.load",
    "quantize": "bonsai.pipeline.loop.quantize",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch costs seconds, and `bonsai --help` needs none of it.

    Raises:
        ConfigError: The extra `train` is not installed.
    """
    if name in HOMES:
        try:
            return getattr(importlib.import_module(HOMES[name]), name)
        except ModuleNotFoundError as error:
            told = explain_missing(error)
            if told is None:
                raise
            raise told from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
