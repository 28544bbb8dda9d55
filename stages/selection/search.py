"""Chooses the width of each group: the most value within a latency budget. A local search starts from the solution of the Lagrangian relaxation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bonsai.profiles.located_yaml import Record
from bonsai.stages.selection.bound import relax, smallest_latency
from bonsai.stages.selection.latency import LatencyModel
from bonsai.stages.selection.problem import Problem, Values, require_reachable
from bonsai.stages.selection.terms import Array, Choice, Options, Terms

REACH = 3
"""One move of the search changes a group's width by at most this many options, up or down."""
GAIN = 1e-12
"""A move must gain more than this fraction of the largest value."""

ROOM = 1e-3
"""Blocks are tried in turn if the bound is above the value by more than this fraction."""


class Selection(Record):
    """The chosen widths.

    Attributes:
        predicted_ms: Latency that the model predicts.
        value: Total value of the widths.
        bound: Upper bound of the value that any widths within the budget can have.
    """

    widths: dict[str, int]
    predicted_ms: float
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Optimality gap: (bound - value) / bound."""
        return max(self.bound - self.value, 0.0) / abs(self.bound) if self.bound else 0.0


def select_widths(values: Values, options: Options, latency: LatencyModel, limit_ms: float) -> Selection:
    """Return the widths of most value whose predicted latency is within `limit_ms` milliseconds.

    Raises:
        BudgetError: No network is within the limit.
    """
    return solve(Problem.of(values, latency.terms(options), limit_ms))


def solve(problem: Problem) -> Selection:
    """Return the widths of most value within the budget.

    Raises:
        BudgetError: No network is within it.
    """
    smallest, fastest = smallest_latency(problem.terms)
    require_reachable(smallest, problem.limit_ms, what="width selection")
    relaxed = relax(problem)
    choice = search(problem, relaxed.choice if relaxed.choice is not None else fastest)
    choice = _search_blocks(problem, choice, relaxed.bound)
    value = problem.value(choice)
    return Selection(widths=problem.terms.widths_at(choice), predicted_ms=problem.terms.total(choice), value=value, bound=max(relaxed.bound, value))


def search(problem: Problem, start: Choice) -> Choice:
    """Improve a choice within the budget: widen one group, or widen one and narrow another, until no move gains value."""
    state = _State(problem, start)
    while (move := state.best_move()) is not None:
        state.make(move)
    return state.choice


def _search_blocks(problem: Problem, choice: Choice, bound: float) -> Choice:
    """Improve a choice by leaving one block out or taking one in again, with all widths chosen anew, while the bound leaves room for more value."""
    blocks = problem.terms.together
    waiting = list(range(len(blocks)))
    while waiting and bound - problem.value(choice) > ROOM * abs(bound):
        turned = waiting.pop(0)
        there = [(choice[block[0]] > 0) != (place == turned) for place, block in enumerate(blocks)]
        start = relax(_with_blocks_as(problem, there)).choice
        found = choice if start is None else search(problem, start)
        if problem.value(found) > problem.value(choice) + GAIN * abs(bound):
            choice, waiting = found, [place for place in range(len(blocks)) if place != turned]
    return choice


def _with_blocks_as(problem: Problem, there: Sequence[bool]) -> Problem:
    """Return the problem in which only the given blocks are there."""
    sizes = problem.terms.sizes
    barred = {group: (0,) if stays else range(1, sizes[group]) for block, stays in zip(problem.terms.together, there, strict=True) for group in block}
    return replace(problem, values=problem.values.without(barred))


class _State:
    """The current choice, with the gain and the cost of every other option of every group, as flat arrays over all options."""

    def __init__(self, problem: Problem, start: Choice) -> None:
        self.problem, self.choice = problem, start.copy()
        sizes = [len(widths) for widths in problem.terms.widths]
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._group = np.repeat(np.arange(len(sizes)), sizes)
        self._option = np.concatenate([np.arange(size) for size in sizes])
        self._cost, self._gain = _Along(problem.terms, self), _Along(problem.values, self)
        self._spent = problem.terms.total(self.choice)
        self._least = GAIN * max(abs(problem.value(problem.widest)), 1e-300)

    def make(self, move: list[tuple[int, int]]) -> None:
        for group, option in move:
            self.choice[group] = option
        self._spent = self.problem.terms.total(self.choice)
        for along in (self._cost, self._gain):
            along.refresh({group for group, _ in move})

    def best_move(self) -> list[tuple[int, int]] | None:
        """Return the move that gains most, or None."""
        limit, cost, gain = self.problem.limit_ms, self._cost.now, self._gain.now
        near = np.abs(self._option - self.choice[self._group]) <= REACH
        best, found = self._least, None
        for flat in np.flatnonzero(near & (gain > self._least)):
            group, option = int(self._group[flat]), int(self._option[flat])
            if self._spent + cost[flat] <= limit:
                if gain[flat] > best:
                    best, found = float(gain[flat]), [(group, option)]
                continue
            fits = near & (self._group != group) & (self._spent + cost[flat] + self._cost.after(group, option) <= limit)
            net = np.where(fits, gain[flat] + self._gain.after(group, option), -np.inf)
            second = int(net.argmax())
            if net[second] > best:
                best, found = float(net[second]), [(group, option), (int(self._group[second]), int(self._option[second]))]
        return found

    def slice(self, group: int) -> slice:
        return slice(int(self._first[group]), int(self._first[group + 1]))


class _Along:
    """How much a total (latency or value) changes with each option of each group, if the other groups stay as they are."""

    def __init__(self, figure: Terms, state: _State) -> None:
        self._figure, self._state = figure, state
        self.now = np.concatenate([self._of(state.choice, group) for group in range(len(figure.groups))])

    def refresh(self, changed: set[int]) -> None:
        for group in changed.union(*(self._figure.neighbours[g] for g in changed)):
            self.now[self._state.slice(group)] = self._of(self._state.choice, group)

    def after(self, group: int, option: int) -> Array:
        """Return the same for all groups after one group is changed."""
        changed, added = self._state.choice.copy(), self.now.copy()
        changed[group] = option
        for other in self._figure.neighbours[group]:
            added[self._state.slice(other)] = self._of(changed, other)
        return added

    def _of(self, choice: Choice, group: int) -> Array:
        along = self._figure.along(choice, group)
        return np.asarray(along - along[choice[group]])
