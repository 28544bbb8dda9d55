"""Which width each group keeps: the most value within a latency budget, by local search from the Lagrangian's network."""

import numpy as np

from profiles.source import Record
from stages.selection.bound import relax, smallest_latency
from stages.selection.latency import LatencyModel
from stages.selection.problem import Problem, Values, require_reachable
from stages.selection.terms import Array, Choice, Options

REACH = 3
"""Options up or down that one move of the search changes a group by."""
GAIN = 1e-12
"""Relative gain below which a move is none."""


class Selection(Record):
    """Widths to keep.

    Attributes:
        predicted_ms: Latency by the model.
        value: What the widths keep.
        bound: No widths within the budget keep more.
    """

    widths: dict[str, int]
    predicted_ms: float
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Most that the value may lie below the best possible one, as a share of that."""
        return max(self.bound - self.value, 0.0) / abs(self.bound) if self.bound else 0.0


def select_widths(values: Values, options: Options, latency: LatencyModel, limit_ms: float) -> Selection:
    """Return the widths of most value whose predicted latency is within `limit_ms` milliseconds.

    Raises:
        BudgetError: No network is within the limit.
    """
    problem = Problem.of(values, latency.terms(options), limit_ms)
    smallest, fastest = smallest_latency(problem.terms)
    require_reachable(smallest, limit_ms, what="width selection")
    relaxed = relax(problem)
    choice = search(problem, relaxed.choice if relaxed.choice is not None else fastest)
    value = problem.value(choice)
    return Selection(widths=problem.terms.widths_at(choice), predicted_ms=problem.terms.total(choice), value=value, bound=max(relaxed.bound, value))


def search(problem: Problem, start: Choice) -> Choice:
    """Improve a choice within the budget: widen one group, or widen one and narrow another, as long as that gains value."""
    state = _State(problem, start)
    while (move := state.best_move()) is not None:
        state.make(move)
    return state.choice


class _State:
    """A choice, and what every option of every group would cost and keep; flat arrays over all options."""

    def __init__(self, problem: Problem, start: Choice) -> None:
        self.problem, self.choice = problem, start.copy()
        sizes = [len(values) for values in problem.values]
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._group = np.repeat(np.arange(len(sizes)), sizes)
        self._option = np.concatenate([np.arange(size) for size in sizes])
        self._values = np.concatenate(problem.values)
        self._extra = np.zeros(len(self._group))
        self._spent = problem.terms.total(self.choice)
        for group in range(len(sizes)):
            self._refresh(group)
        self._least = GAIN * max(float(np.abs(self._values).max()), 1e-300)

    def make(self, move: list[tuple[int, int]]) -> None:
        for group, option in move:
            self.choice[group] = option
        self._spent = self.problem.terms.total(self.choice)
        for touched in {other for group, _ in move for other in (group, *self.problem.terms.neighbours[group])}:
            self._refresh(touched)

    def best_move(self) -> list[tuple[int, int]] | None:
        """Return the move that gains most, or None."""
        problem, here = self.problem, self._first[:-1] + self.choice
        gain = self._values - self._values[here][self._group]
        distance = self._option - self.choice[self._group]
        best, found = self._least, None
        for flat in np.flatnonzero((gain > self._least) & (np.abs(distance) <= REACH)):
            group, option = int(self._group[flat]), int(self._option[flat])
            if self._spent + self._extra[flat] <= problem.limit_ms:
                if gain[flat] > best:
                    best, found = float(gain[flat]), [(group, option)]
                continue
            extra = self._after(group, option)
            other = (self._group != group) & (np.abs(distance) <= REACH) & (self._spent + self._extra[flat] + extra <= problem.limit_ms)
            net = np.where(other, gain[flat] + gain, -np.inf)
            second = int(net.argmax())
            if net[second] > best:
                best, found = float(net[second]), [(group, option), (int(self._group[second]), int(self._option[second]))]
        return found

    def _refresh(self, group: int) -> None:
        self._extra[self._slice(group)] = self._along(self.choice, group)

    def _after(self, group: int, option: int) -> Array:
        """Return what every option of the other groups would cost, were one group changed."""
        changed = self.choice.copy()
        changed[group] = option
        extra = self._extra.copy()
        for other in self.problem.terms.neighbours[group]:
            extra[self._slice(other)] = self._along(changed, other)
        return extra

    def _along(self, choice: Choice, group: int) -> Array:
        """Return the milliseconds that every option of a group adds to what it has now."""
        along = self.problem.terms.along(choice, group)
        return np.asarray(along - along[choice[group]])

    def _slice(self, group: int) -> slice:
        return slice(int(self._first[group]), int(self._first[group + 1]))
