"""What a group is worth at a width: from the scores of its channels to the value that selection maximises."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from stages.selection.operators import Operator
from stages.selection.problem import Values
from stages.selection.terms import Options

Value = Literal["sum", "reciprocal"]


def values_from_scores(scores: Mapping[str, Sequence[float]], options: Options) -> Values:
    """Return V_g(c), the sum of the c highest channel scores, for every option of every group."""
    sums = {group: list(accumulate(sorted(vector, reverse=True))) for group, vector in scores.items()}
    return {group: {width: sums[group][width - 1] for width in widths} for group, widths in options.items()}


def reciprocal_values(scores: Mapping[str, Sequence[float]], options: Options, operators: Iterable[Operator]) -> Values:
    """Return V_g(c) = - n_g / (share of the group's score that its c best channels hold), n_g the operators on the group.

    A group that is cut to a small share loses without limit, so that no bottleneck can be paid for elsewhere; the loss of a network
    falls as a power of its width, of which this is one per group, and a group that more operators read or write weighs more.
    """
    uses: dict[str, int] = dict.fromkeys(options, 0)
    for operator in operators:
        for group in [name for name, _ in operator.inputs] + ([operator.output] if operator.output else []):
            uses[group] += 1
    kept, found = values_from_scores(scores, options), {}
    for group, widths in options.items():
        whole = max(sum(scores[group]), 1e-300)
        found[group] = {width: -max(uses[group], 1) * whole / max(kept[group][width], 1e-9 * whole) for width in widths}
    return found
