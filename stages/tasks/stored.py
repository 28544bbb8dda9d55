"""Stores the statistics of both engines in a package, for tasks that need no form of their own."""

from collections.abc import Mapping

import numpy as np

from bonsai.stages.tasks.task import Statistics

DENSE, SHIPPED = "dense", "engine"
"""Prefixes of the names of the tensors."""
Kinds = Mapping[str, tuple[str, int]]
"""By name of a statistic, the name of its dtype and its number of dimensions."""


def pack(dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
    """Return the tensors of both engines, each as ``engine.statistic``."""
    both = {SHIPPED: shipped} if dense is None else {DENSE: dense, SHIPPED: shipped}
    return {f"{engine}.{name}": array for engine, statistics in both.items() for name, array in statistics.items()}


def unpack(tensors: Mapping[str, np.ndarray], kinds: Kinds) -> tuple[Statistics | None, Statistics]:
    """Return what `pack` was given.

    Raises:
        ValueError: The tensors are others.
    """
    engines = [engine for engine in (DENSE, SHIPPED) if any(name.startswith(f"{engine}.") for name in tensors)]
    named = {f"{engine}.{name}": kind for engine in engines for name, kind in kinds.items()}
    shapes = {tensors[name].shape for name in named if name in tensors}
    fits = tensors.keys() == named.keys() and len(shapes) == 1 and all(size > 0 for size in next(iter(shapes)))
    if SHIPPED not in engines or not fits or any((tensors[name].dtype.name, tensors[name].ndim) != kind for name, kind in named.items()):
        listed = ", ".join(f"{SHIPPED}.{name} {dtype} of {dimensions} dimensions" for name, (dtype, dimensions) in kinds.items())
        raise ValueError(f"{listed}, all of one shape; the same for {DENSE}, unless there is no reference")
    found = {engine: {name: tensors[f"{engine}.{name}"] for name in kinds} for engine in engines}
    return found.get(DENSE), found[SHIPPED]
