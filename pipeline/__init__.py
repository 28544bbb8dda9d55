"""Bonsai's Python interface.

from pipeline import compress
packages = compress("resnet-edge", "local-cpu", {"quantize.epochs": 2})
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.flow import compress

__all__ = ["compress"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch costs seconds, and `bonsai --help` needs none of it."""
    if name in __all__:
        from pipeline import flow

        return getattr(flow, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
