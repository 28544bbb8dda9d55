"""Bonsai's Python interface.

from pipeline import compress
packages = compress("resnet-edge", "local-cpu", {"quantize.epochs": 2})
network = load_network("artifacts/recover/3f2a...")  # a plain nn.Module
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.flow import compress
    from pipeline.load import load_network

__all__ = ["compress", "load_network"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch costs seconds, and `bonsai --help` needs none of it."""
    if name in __all__:
        from pipeline import flow, load

        return getattr({"compress": flow, "load_network": load}[name], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
