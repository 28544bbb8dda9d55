"""How much of a network its listed operators cover, how much of it can be pruned, and which of them stay in float."""

from collections.abc import Collection, Iterable

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Precision
from bonsai.stages.selection.operator_records import Operator, Unseen

LEAST_SEEN = 0.9
"""The known operators must cover this fraction of a network's multiply-accumulates; otherwise their sum does not predict its latency."""
MOST_NAMED = 4
"""Most operators that a message names."""


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
        operators: Operators of the dense network.
        kept: Names of layers that the recipe leaves in float.
    """
    return frozenset(operator.module for operator in operators if operator.module in kept or not operator.quantized)


def at_precision(operators: Iterable[Operator], precision: Precision, in_float: Collection[str], float_type: Precision) -> tuple[Operator, ...]:
    """Return the operators as an engine of a precision runs them: beside INT8, those that stay in float say so in their class.

    Args:
        operators: Operators of the dense network.
        precision: Precision of the engine.
        in_float: Names of the operators that stay in float beside INT8.
        float_type: Number format that they are then computed in.
    """

    def at(operator: Operator) -> Operator:
        changed = operator.operator.model_copy(update={"precision": float_type})
        return operator.model_copy(update={"operator": changed}) if operator.module in in_float else operator

    return tuple(at(operator) for operator in operators) if precision == "int8" else tuple(operators)


def require_seen(operators: Collection[Operator], unseen: Collection[Unseen], *, what: str, timed: bool) -> str | None:
    """Refuse milliseconds that rest on a part of the network alone; return the warning where whole networks are timed, None where all is well.

    Args:
        operators: Operators of the dense network.
        unseen: Products that they do not cover.
        what: Whose milliseconds they are, for the message.
        timed: Whether whole networks are timed, here or for the table that was brought.

    Raises:
        ConfigError: They are not, and the operators cover less than `LEAST_SEEN`.
    """
    share = seen_share(operators, unseen)
    if share >= LEAST_SEEN:
        return None
    total = sum(each.macs for each in unseen) / (1 - share)
    largest = sorted(unseen, key=lambda each: -each.macs)[:MOST_NAMED]
    named = ", ".join(f"{each.name} {each.macs / total:.0%}" for each in largest) + (", ..." if len(unseen) > MOST_NAMED else "")
    if timed:
        return f"warning: {what}: the latency table sees {share:.0%} of the multiply-accumulates, so its predictions may be far off; unseen: {named}"
    raise ConfigError(
        describe(
            f"{what}: no milliseconds can be promised, since the latency table sees too little of the network",
            given=f"{share:.0%} of the multiply-accumulates; unseen: {named}",
            allowed=f"at least {LEAST_SEEN:.0%}, where no whole network is timed",
            fix="run `bonsai characterize` on the device and bring its tables, run there, or write these layers as convolutions, linear layers or products",
        )
    )
