"""Names of the criteria that rank channels; `scores.py` and `statistics.py` compute them. No torch: a recipe needs the names alone."""

from typing import Literal, get_args

WeightCriterion = Literal["magnitude_l2", "bn_scale", "fpgm", "random"]
Criterion = Literal[WeightCriterion, "bn_gradient", "snip"]
Normalisation = Literal["none", "local", "global", "isomorphic"]
OF_WEIGHTS: tuple[WeightCriterion, ...] = get_args(WeightCriterion)
"""Criteria that need only the weights. The others need batches."""
REMOVED: dict[str, tuple[str, Criterion]] = {
    "magnitude_l1": ("no comparison told it from `magnitude_l2`", "magnitude_l2"),
    "lamp": ("within a group it ranks channels as `magnitude_l2` does", "magnitude_l2"),
    "taylor": ("the sum of a channel's weights times their gradients is zero before a BatchNorm, up to rounding", "bn_gradient"),
    "movement": ("the sum of a channel's weights times their gradients is zero before a BatchNorm, up to rounding", "bn_gradient"),
    "taylor_squared": ("right after a cut it kept less than `magnitude_l2`, and gained nothing by training on", "snip"),
    "hessian": ("right after a cut it kept less than `magnitude_l2`, and gained nothing by training on", "snip"),
    "activation": ("right after a cut it kept less than `magnitude_l2`, and gained nothing by training on", "bn_gradient"),
}
"""Names that recipes used to know: why each is gone, and what takes its place. Measured: docs/pruning.md."""
