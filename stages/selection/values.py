"""What a group is worth at a width: from the scores of its channels to the value that selection maximises."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from stages.selection.problem import Values
from stages.selection.terms import Options


def values_from_scores(scores: Mapping[str, Sequence[float]], options: Options) -> Values:
    """Return V_g(c), the sum of the c highest channel scores, for every option of every group."""
    sums = {group: list(accumulate(sorted(vector, reverse=True))) for group, vector in scores.items()}
    return {group: {width: sums[group][width - 1] for width in widths} for group, widths in options.items()}
