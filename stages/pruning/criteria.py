"""Names of the criteria that rank channels; `scores.py` and `statistics.py` compute them. No torch: a recipe needs the names alone."""

from typing import Literal, get_args

WeightCriterion = Literal["magnitude_l1", "magnitude_l2", "bn_scale", "fpgm", "lamp", "random"]
Criterion = Literal[WeightCriterion, "taylor", "bn_gradient", "taylor_squared", "snip", "movement", "activation"]
Normalisation = Literal["none", "local", "global", "isomorphic"]
OF_WEIGHTS: tuple[WeightCriterion, ...] = get_args(WeightCriterion)
"""Criteria that need only the weights. The others need batches."""
