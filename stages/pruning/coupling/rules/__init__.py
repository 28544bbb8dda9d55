"""What every operator of ATen does with the labels of its operands."""

from bonsai.stages.pruning.coupling.rules import products, reductions, shapes
from bonsai.stages.pruning.coupling.rules.registry import RULES, elementwise

__all__ = ["RULES", "elementwise", "products", "reductions", "shapes"]
