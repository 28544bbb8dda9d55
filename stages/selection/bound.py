"""How good any choice within the budget can be: a Lagrangian bound, by variable elimination over the groups.

For every price lambda >= 0 per millisecond, max_c V(c) - lambda * (latency(c) - budget) is at least the value of the best
network within the budget. The maximum is found exactly by eliminating one group after another (Dechter, "Bucket elimination",
1999), since an operator ties few groups; where a table over several groups would grow too large it is split, and the bound is
looser but holds ("mini-buckets", Dechter and Rish 2003). The network of the best price is a good start for a search.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.terms import Array, Choice, Terms

LARGEST = 1 << 18
"""Most entries of a table over several groups."""
PRICES = 40
"""Most prices (Lagrange multipliers) that are tried; about ten are usually enough."""

Factor = tuple[tuple[int, ...], Array]


@dataclass(frozen=True)
class Relaxed:
    """What the Lagrangian says of a problem.

    Attributes:
        bound: No choice within the budget has a higher value.
        choice: The best choice within the budget that was met on the way; None if there was none.
    """

    bound: float
    choice: Choice | None


def relax(problem: Problem) -> Relaxed:
    """Return an upper bound of the value within the budget, and a network to start from."""
    terms, values = problem.terms, problem.values
    order = elimination_order(terms, values)
    bound, best = float("inf"), None
    cheap: Choice | None = None  # within the budget

    def look(price: float) -> Choice:
        nonlocal bound, best
        highest, choice = maximise([*_factors(values, 1.0), *_factors(terms, -price)], terms, order)
        bound = min(bound, highest + values.constant + price * (problem.limit_ms - terms.constant))
        if problem.fits(choice) and (best is None or problem.value(choice) > problem.value(best)):
            best = choice
        return choice

    dear = look(0.0)  # over the budget
    if problem.fits(dear):
        return Relaxed(bound, dear)
    price = abs(problem.value(dear) - problem.value(problem.narrowest)) / max(terms.total(dear), 1e-12) or 1.0
    for _ in range(PRICES):
        choice = look(price)
        if problem.fits(choice):
            cheap = choice
        else:
            dear = choice
        if cheap is None:
            price *= 4
            continue
        slower, worth = terms.total(dear) - terms.total(cheap), problem.value(dear) - problem.value(cheap)
        following = worth / slower if slower > 0 else 0.0
        if following <= 0 or abs(following - price) <= 1e-9 * price:
            break
        price = following
    return Relaxed(bound, best)


def smallest_latency(terms: Terms) -> tuple[float, Choice]:
    """Return the smallest milliseconds of any choice, and that choice; exact where no table had to be split."""
    _, choice = maximise(_factors(terms, -1.0), terms, elimination_order(terms))
    narrowest = np.zeros(len(terms.groups), dtype=int)
    best = min((choice, narrowest), key=terms.total)
    return terms.total(best), best


def elimination_order(*figures: Terms) -> list[int]:
    """Return the groups in the order of elimination: always the one whose joint table is smallest."""
    sizes = [len(widths) for widths in figures[0].widths]
    around = [set().union(*(figure.neighbours[group] for figure in figures)) for group in range(len(sizes))]
    left, order = set(range(len(sizes))), []
    while left:
        group = min(left, key=lambda g: (sizes[g] * np.prod([float(sizes[other]) for other in around[g]]), g))
        for other in around[group]:
            around[other] |= around[group] - {other}
            around[other].discard(group)
        left.remove(group)
        order.append(group)
    return order


def maximise(factors: Sequence[Factor], terms: Terms, order: Sequence[int]) -> tuple[float, Choice]:
    """Return the maximum of a sum of factors and where it lies; an upper bound and a good place where a table is split."""
    sizes = [len(widths) for widths in terms.widths]
    waiting, buckets, constant = list(factors), [], 0.0
    for group in order:
        bucket = [factor for factor in waiting if group in factor[0]]
        waiting = [factor for factor in waiting if group not in factor[0]]
        buckets.append(bucket)
        for scope, table in _joined(bucket, sizes):
            rest, reduced = tuple(g for g in scope if g != group), table.max(axis=scope.index(group))
            if rest:
                waiting.append((rest, reduced))
            else:
                constant += float(reduced)
    choice = np.zeros(len(sizes), dtype=int)
    for group, bucket in zip(reversed(order), reversed(buckets), strict=True):
        along = np.zeros(sizes[group])
        for scope, table in bucket:
            along += table[tuple(slice(None) if g == group else choice[g] for g in scope)]
        choice[group] = int(along.argmax())
    return constant, choice


def _factors(figure: Terms, weight: float) -> list[Factor]:
    """Return the tables of a figure times `weight`, which is negative where the figure has operators that are no sum over groups."""
    if not weight:
        return []
    found: list[Factor] = [((group,), weight * table) for group, table in enumerate(figure.unary)]
    found += [(scope, weight * table) for scope, table in figure.pairs.items()]
    return found + [(scope, weight * table) for scope, table in (term.lower_bound() for term in figure.sums)]


def _joined(bucket: Sequence[Factor], sizes: Sequence[int]) -> list[Factor]:
    """Add factors up over their common scope, in as few tables as stay below `LARGEST` entries."""
    joined: list[Factor] = []
    for scope, table in sorted(bucket, key=lambda factor: -len(factor[0])):
        for index, (known, total) in enumerate(joined):
            union = tuple(sorted({*known, *scope}))
            if np.prod([float(sizes[g]) for g in union]) <= LARGEST:
                joined[index] = (union, _spread(known, total, union) + _spread(scope, table, union))
                break
        else:
            ordered = tuple(sorted(scope))
            joined.append((ordered, np.transpose(table, [scope.index(g) for g in ordered])))
    return joined


def _spread(scope: tuple[int, ...], table: Array, union: tuple[int, ...]) -> Array:
    """Return a table with an axis for every group of `union`, of length 1 where it does not depend on it."""
    ordered = sorted(scope)
    turned = np.transpose(table, [scope.index(g) for g in ordered])
    return turned.reshape([turned.shape[ordered.index(g)] if g in scope else 1 for g in union])
