"""Selections of the field, for comparison: each takes the same problem, and returns a choice within its budget."""

from collections.abc import Callable

import numpy as np

from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.terms import Array, Choice

STEPS = 60
"""Number of steps of a bisection."""


def uniform(problem: Problem) -> Choice:
    """Keep the same share of every group, rounded to its nearest option; the largest share that fits."""

    def at(share: float) -> Choice:
        return np.array([int(np.abs(widths - share * widths[-1]).argmin()) for widths in problem.terms.widths])

    return _largest_that_fits(at, problem)


def global_ranking(problem: Problem) -> Choice:
    """Keep the channels above one threshold over all groups, as Torch-Pruning's global pruning does; bisect the threshold.

    The scores of a step's channels are their part of the group's value, so that widths stay on the device's steps.
    """
    steps = [np.diff(values) / np.diff(widths) for values, widths in zip(problem.values.unary, problem.terms.widths, strict=True)]
    every = np.sort(np.concatenate(steps))[::-1]

    def at(share: float) -> Choice:
        kept = round(share * len(every))
        threshold = every[kept - 1] if kept else np.inf
        return np.array([int((step >= threshold).sum()) for step in steps])

    return _largest_that_fits(at, problem)


def one_sided_knapsack(problem: Problem, *, bins: int = 2000) -> Choice:
    """Charge every group for its own output channels alone, the inputs dense, and solve the knapsack exactly, as HALP does.

    The charge is too high once the inputs are cut, so the knapsack is bisected for the largest that fits.
    """
    charges = [problem.terms.along(problem.widest, group) for group in range(len(problem.terms.groups))]
    charges = [charge - charge[0] for charge in charges]
    most = sum(float(charge[-1]) for charge in charges)

    def at(share: float) -> Choice:
        return _knapsack(problem.values.unary, charges, share * most, bins)

    return _largest_that_fits(at, problem, steps=20)


def _largest_that_fits(at: Callable[[float], Choice], problem: Problem, *, steps: int = STEPS) -> Choice:
    low, high, best = 0.0, 1.0, problem.narrowest
    if problem.fits(problem.widest):
        return problem.widest
    for _ in range(steps):
        middle = (low + high) / 2
        choice = at(middle)
        if problem.fits(choice):
            low, best = middle, choice
        else:
            high = middle
    return best


def _knapsack(values: list[Array], charges: list[Array], limit: float, bins: int) -> Choice:
    """Return the option per group of most value whose charges add up to at most `limit`, rounded up to `bins` parts."""
    best, taken = np.zeros(bins + 1), []
    unit = max(limit / bins, 1e-12)
    for worth, charge in zip(values, charges, strict=True):
        weights = np.ceil(np.maximum(charge, 0) / unit - 1e-9).astype(int)
        following, option = np.full(bins + 1, -np.inf), np.zeros(bins + 1, dtype=int)
        for index, (value, weight) in enumerate(zip(worth, weights, strict=True)):
            if weight > bins:
                continue
            candidate = np.full(bins + 1, -np.inf)
            candidate[weight:] = best[: bins + 1 - weight] + value
            better = candidate > following
            following, option = np.where(better, candidate, following), np.where(better, index, option)
        best = following
        taken.append((option, weights))
    left, choice = bins, np.zeros(len(values), dtype=int)
    for group in range(len(values) - 1, -1, -1):
        option, weights = taken[group]
        choice[group] = option[left]
        left -= int(weights[choice[group]])
    return choice
