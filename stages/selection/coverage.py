"""How much of a network its listed operators cover, how much of it can be pruned, and which of them stay in float."""

from collections.abc import Collection, Iterable

from profiles.schema import Precision
from stages.selection.operators import Operator, Unseen

LEAST_SEEN = 0.9
"""Share of a network's multiply-accumulates that its operators must cover, or their sum says nothing of its milliseconds."""


def seen_share(operators: Iterable[Operator], unseen: Iterable[Unseen]) -> float:
    """Return the share of the dense network's multiply-accumulates that its operators cover, as a ratio 0-1; 1 where there are none."""
    seen = sum(operator.macs(dict(operator.full_widths)) for operator in operators)
    missed = sum(each.macs for each in unseen)
    return seen / (seen + missed) if missed else 1.0


def prunable_share(operators: Iterable[Operator], unseen: Iterable[Unseen], groups: Collection[str]) -> float:
    """Return the share of the dense network's multiply-accumulates that shrink with any of the groups, as a ratio 0-1."""
    macs = [(operator.macs(dict(operator.full_widths)), operator.groups) for operator in operators]
    total = sum(count for count, _ in macs) + sum(each.macs for each in unseen)
    return sum(count for count, used in macs if used & set(groups)) / max(total, 1)


def left_in_float(operators: Iterable[Operator], kept: Collection[str]) -> frozenset[str]:
    """Return the names of the operators that an INT8 engine computes in float: those that the recipe keeps, and those that the quantiser does not take.

    Args:
        operators: Of the dense network.
        kept: Names of layers that the recipe leaves in float.
    """
    return frozenset(operator.module for operator in operators if operator.module in kept or not operator.quantized)


def at_precision(operators: Iterable[Operator], precision: Precision, in_float: Collection[str], float_type: Precision) -> tuple[Operator, ...]:
    """Return the operators as an engine of a precision runs them: beside INT8, those that stay in float say so in their class.

    Args:
        operators: Of the dense network.
        precision: Of the engine.
        in_float: Names of the operators that stay in float beside INT8.
        float_type: Number format that they are then computed in.
    """

    def at(operator: Operator) -> Operator:
        changed = operator.operator.model_copy(update={"precision": float_type})
        return operator.model_copy(update={"operator": changed}) if operator.module in in_float else operator

    return tuple(at(operator) for operator in operators) if precision == "int8" else tuple(operators)
