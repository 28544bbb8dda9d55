"""Which width each group keeps: the most value within a latency budget.

    maximise sum_g V_g(c_g)  subject to  latency(c) <= budget,  c_g among the group's options

HALP (arXiv 2110.10811) and MDP (arXiv 2504.02168) state the problem; here greedy descent and a local
search over swaps solve it for any topology, since nothing but the latency function is asked.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from profiles.errors import BudgetError, describe
from stages.pruning.groups import Widths

Options = Mapping[str, Sequence[int]]
Values = Mapping[str, Mapping[int, float]]


class LatencyOf(Protocol):
    """Latency in milliseconds as a function of widths."""

    def __call__(self, widths: Widths) -> float:
        """Return the latency of a network of these widths."""
        ...

    def change(self, widths: Widths, group: str, width: int) -> float:
        """Return the difference that setting one group to `width` makes."""
        ...


def values_from_scores(scores: Mapping[str, Sequence[float]], options: Options) -> Values:
    """Return V_g(c), the sum of the c highest channel scores, for every option of every group."""
    sums = {group: list(accumulate(sorted(vector, reverse=True))) for group, vector in scores.items()}
    return {group: {width: sums[group][width - 1] for width in widths} for group, widths in options.items()}


def require_reachable(options: Options, latency: LatencyOf, limit_ms: float, *, what: str, margin: float = 0.0) -> float:
    """Return the smallest predicted latency in milliseconds: every group at its narrowest.

    Args:
        options: Widths to choose from.
        latency: The prediction.
        limit_ms: The budget.
        what: Whose budget it is, for the message.
        margin: Share of the budget, 0-1, that must stay free.

    Raises:
        BudgetError: The budget lies below it.
    """
    floor_ms = latency({group: min(widths) for group, widths in options.items()})
    if floor_ms > limit_ms * (1 - margin):
        raise BudgetError(
            describe(
                f"{what}: the latency budget cannot be met",
                given=f"{limit_ms:.4g} ms",
                allowed=f"at least {floor_ms / (1 - margin):.4g} ms, with every group at its narrowest width",
                fix="raise profile.budget, lower prune.floor, or choose a smaller network",
            )
        )
    return floor_ms


def select_widths(values: Values, options: Options, latency: LatencyOf, limit_ms: float) -> Widths:
    """Return the widths of most value whose predicted latency is within `limit_ms` milliseconds.

    Raises:
        BudgetError: Even the narrowest network is above the limit.
    """
    require_reachable(options, latency, limit_ms, what="width selection")
    down = _improve(_descend(values, options, latency, limit_ms), values, options, latency, limit_ms)
    narrowest = {group: min(widths) for group, widths in options.items()}
    up = _improve(narrowest, values, options, latency, limit_ms)
    return max(down, up, key=lambda widths: total_value(values, widths))


def total_value(values: Values, widths: Widths) -> float:
    """Return the value that a network of these widths keeps."""
    return sum(values[group][width] for group, width in widths.items())


def _descend(values: Values, options: Options, latency: LatencyOf, limit_ms: float) -> Widths:
    """Narrow, from the dense network, whichever group loses the least value per millisecond, until it fits."""
    widths = {group: max(choices) for group, choices in options.items()}
    spent = latency(widths)
    while spent > limit_ms:
        moves = [
            ((values[group][widths[group]] - values[group][narrower]) / -change, group, narrower, change)
            for group, choices in options.items()
            for narrower in choices
            if narrower < widths[group] and (change := latency.change(widths, group, narrower)) < 0
        ]
        if not moves:  # narrowing further saves nothing; the narrowest network is known to fit
            return {group: min(choices) for group, choices in options.items()}
        _, group, narrower, change = min(moves)
        widths[group] = narrower
        spent += change
    return widths


def _improve(start: Widths, values: Values, options: Options, latency: LatencyOf, limit_ms: float) -> Widths:
    """Widen one group, or widen one and narrow another, as long as that gains value within the limit."""
    widths, spent = dict(start), latency(start)
    while True:
        best_gain, best = 1e-12, None
        for group, wider in _neighbours(widths, options, upwards=True):
            gain = values[group][wider] - values[group][widths[group]]
            after = spent + latency.change(widths, group, wider)
            if after <= limit_ms:
                if gain > best_gain:
                    best_gain, best = gain, {group: wider}
                continue
            trial = {**widths, group: wider}
            for other, narrower in _neighbours(widths, options, upwards=False):
                net = gain - (values[other][widths[other]] - values[other][narrower])
                if other != group and net > best_gain and after + latency.change(trial, other, narrower) <= limit_ms:
                    best_gain, best = net, {group: wider, other: narrower}
        if best is None:
            return widths
        widths = {**widths, **best}
        spent = latency(widths)


def _neighbours(widths: Widths, options: Options, *, upwards: bool, reach: int = 3) -> list[tuple[str, int]]:
    """Return (group, width) for the next `reach` options of every group in one direction."""
    found = []
    for group, choices in options.items():
        here = choices.index(widths[group])
        near = choices[here + 1 : here + 1 + reach] if upwards else choices[max(here - reach, 0) : here]
        found += [(group, width) for width in near]
    return found
