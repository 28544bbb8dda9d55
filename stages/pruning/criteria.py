"""Names of the criteria that rank channels; `scores.py` and `statistics.py` compute them. No torch: a recipe needs the names alone."""

from typing import Literal

Criterion = Literal[
    "magnitude_l1", "magnitude_l2", "bn_scale", "fpgm", "lamp", "random", "taylor", "bn_gradient", "taylor_squared", "snip", "movement", "activation"
]
Normalisation = Literal["none", "local", "global", "isomorphic"]
OF_WEIGHTS: tuple[Criterion, ...] = ("magnitude_l1", "magnitude_l2", "bn_scale", "fpgm", "lamp", "random")
"""Criteria that need only the weights. The others need batches."""
