"""Bonsai's Python interface.

from pipeline import compress
packages = compress("resnet-edge", "local-cpu", {"quantize.epochs": 2})
comparison = compare("resnet-edge", ["local-cpu", "rtx-4090"])
network = load_network("artifacts/recover/3f2a...")  # a plain nn.Module
"""

import importlib
from typing import TYPE_CHECKING, Any

import stages  # noqa: F401  # its import hook, which data workers need that know nothing else of Bonsai

if TYPE_CHECKING:
    from pipeline.comparing import compare
    from pipeline.flow import compress
    from pipeline.load import load_network

__all__ = ["compare", "compress", "load_network"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch costs seconds, and `bonsai --help` needs none of it."""
    if name in __all__:
        module = importlib.import_module({"compare": "pipeline.comparing", "compress": "pipeline.flow", "load_network": "pipeline.load"}[name])
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
