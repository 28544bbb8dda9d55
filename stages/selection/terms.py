"""A figure of a network, its latency or its value, as a sum of small tables over the options of every group: what makes selection quick."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bonsai.stages.pruning.groups import Widths

FAR = 1e3
"""How far an option is moved that is not to be chosen, over the largest values of all groups."""
Options = Mapping[str, Sequence[int]]
Array = np.ndarray
Choice = np.ndarray
"""(groups,) int: for each group, the index of the chosen option."""


class SumTerm(NamedTuple):
    """An operator that reads or writes several groups and whose time is no sum over them.

    Attributes:
        inputs: Rows by option, per group that the input comes from; those of the groups add up.
        outputs: The same of the output and the columns.
        table: Milliseconds.
    """

    inputs: Mapping[int, Array]
    outputs: Mapping[int, Array]
    table: Array

    @property
    def groups(self) -> frozenset[int]:
        """The groups that it depends on."""
        return frozenset({*self.inputs, *self.outputs})

    def total(self, choice: Choice) -> float:
        """Return the milliseconds at a choice."""
        row, column = (sum(int(part[choice[group]]) for group, part in side.items()) for side in (self.inputs, self.outputs))
        return float(self.table[row, column])

    def along(self, choice: Choice, group: int) -> Array:
        """Return the milliseconds for every option of one group of the term."""
        rows, columns = (
            sum(int(part[choice[other]]) for other, part in side.items() if other != group) + side.get(group, 0) for side in (self.inputs, self.outputs)
        )
        return np.asarray(self.table[rows, columns])

    def between(self, at: Array) -> Array:
        """Return the milliseconds at (n, groups) positions between the options, interpolated."""
        rows, columns = (
            sum((_along(part[None].astype(float), np.zeros(len(at), dtype=int), at[:, group]) for group, part in side.items()), np.zeros(len(at)))
            for side in (self.inputs, self.outputs)
        )
        top, bottom, down = _between(rows, len(self.table))
        return np.asarray(_along(self.table, top, columns) * (1 - down) + _along(self.table, bottom, columns) * down)

    def lower_bound(self) -> tuple[tuple[int, ...], Array]:
        """Return a table over one input and one output that is nowhere above the term."""
        row, least = _least(self.table, self.inputs)
        column, turned = _least(least.T, self.outputs)
        least = turned.T
        if row is None or column is None:
            return tuple(group for group in (row, column) if group is not None), least.reshape(-1)
        return ((row,), np.diagonal(least).copy()) if row == column else ((row, column), least)


def _least(table: Array, parts: Mapping[int, Array]) -> tuple[int | None, Array]:
    """Return the group of the widest range, and the least entries of a table's rows at each of its options, whatever the other groups are."""
    if not parts:
        return None, table
    group = max(parts, key=lambda g: int(parts[g].max() - parts[g].min()))
    rest = [part for other, part in parts.items() if other != group]
    low, high = sum(int(part.min()) for part in rest), sum(int(part.max()) for part in rest)
    return group, np.stack([table[low + part : high + part + 1].min(0) for part in parts[group]])


class Terms:
    """A figure of a network, such as its milliseconds, as a function of a choice of options.

    Args:
        options: Widths by group.
        constant: The part that depends on no group.
        unary: (options,) by group; groups that are missing add nothing of their own.
        pairs: (options of the first, options of the second) by pair of groups.
        sums: The rest.
        together: Groups whose least options are chosen together or not at all.
    """

    def __init__(
        self,
        options: Options,
        *,
        constant: float = 0.0,
        unary: Mapping[str, Array] | None = None,
        pairs: Mapping[tuple[str, str], Array] | None = None,
        sums: Sequence[SumTerm] = (),
        together: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.groups = tuple(options)
        self.widths = tuple(np.array(options[group], dtype=int) for group in self.groups)
        place = {group: index for index, group in enumerate(self.groups)}
        self.constant = constant
        self.unary = [np.zeros(len(widths)) for widths in self.widths]
        for group, table in (unary or {}).items():
            self.unary[place[group]] += table
        self.pairs: dict[tuple[int, int], Array] = {}
        for (a, b), table in (pairs or {}).items():
            i, j = place[a], place[b]
            key, oriented = ((i, j), table) if i < j else ((j, i), table.T)
            self.pairs[key] = self.pairs.get(key, 0.0) + oriented
        self.sums = tuple(sums)
        self.together = tuple(tuple(place[group] for group in block) for block in together)
        self._beside: list[list[tuple[int, Array]]] = [[] for _ in self.groups]
        for (i, j), table in self.pairs.items():
            self._beside[i].append((j, table))
            self._beside[j].append((i, table.T))
        self._sums_of = [[term for term in self.sums if index in term.groups] for index in range(len(self.groups))]

    @property
    def sizes(self) -> list[int]:
        """Number of options of each group."""
        return [len(widths) for widths in self.widths]

    def without(self, options: Mapping[int, Iterable[int]]) -> "Terms":
        """Return the figure with some options, by group, so much lower that they are never the largest."""
        found = copy(self)
        found.unary = [table.copy() for table in self.unary]
        for group, some in options.items():
            found.unary[group][list(some)] -= FAR * (1 + sum(float(np.abs(table).max()) for table in self.unary))
        return found

    @cached_property
    def neighbours(self) -> tuple[frozenset[int], ...]:
        """Groups that share an operator with each group."""
        found = [{other for other, _ in beside} for beside in self._beside]
        for term in self.sums:
            for group in term.groups:
                found[group] |= term.groups - {group}
        return tuple(frozenset(others) for others in found)

    def total(self, choice: Choice) -> float:
        """Return the figure of the network."""
        found = self.constant + sum(float(table[choice[group]]) for group, table in enumerate(self.unary))
        found += sum(float(table[choice[i], choice[j]]) for (i, j), table in self.pairs.items())
        return found + sum(term.total(choice) for term in self.sums)

    def between(self, widths: Array) -> Array:
        """Return the figure at widths between the options, interpolated; outside them the nearest two go on as a line.

        Args:
            widths: (n, groups) channels.
        """
        at = np.stack([_position(options, widths[:, group]) for group, options in enumerate(self.widths)], 1)
        alone, first, second, together = self._stacked
        low, high, share = _between(at, np.array([len(options) for options in self.widths]))
        every = np.arange(len(self.groups))
        found = self.constant + (alone[every, low] * (1 - share) + alone[every, high] * share).sum(1)
        if len(together):
            pair, down, along = np.arange(len(together)), share[:, first], share[:, second]
            upper = together[pair, low[:, first], low[:, second]] * (1 - along) + together[pair, low[:, first], high[:, second]] * along
            lower = together[pair, high[:, first], low[:, second]] * (1 - along) + together[pair, high[:, first], high[:, second]] * along
            found += (upper * (1 - down) + lower * down).sum(1)
        for term in self.sums:
            found += term.between(at)
        return np.asarray(found)

    @cached_property
    def _stacked(self) -> tuple[Array, Array, Array, Array]:
        """The unary tables as rows of one array; the groups of the pairs and their tables as one array; shorter ones are filled up with zeros."""
        most = max(len(options) for options in self.widths)
        alone = np.zeros((len(self.groups), most))
        for group, table in enumerate(self.unary):
            alone[group, : len(table)] = table
        together = np.zeros((len(self.pairs), most, most))
        for place, ((i, j), table) in enumerate(self.pairs.items()):
            together[place, : len(self.widths[i]), : len(self.widths[j])] = table
        first, second = (np.array([pair[side] for pair in self.pairs], dtype=int) for side in (0, 1))
        return alone, first, second, together

    def along(self, choice: Choice, group: int) -> Array:
        """Return all that depends on a group, for each of its options, the others as they are."""
        found = self.unary[group].copy()
        for other, table in self._beside[group]:
            found += table[:, choice[other]]
        for term in self._sums_of[group]:
            found += term.along(choice, group)
        return found

    def choice(self, widths: Widths) -> Choice:
        """Return the options that these widths are."""
        return np.array([int(np.flatnonzero(options == widths[group])[0]) for group, options in zip(self.groups, self.widths, strict=True)])

    def widths_at(self, choice: Choice) -> Widths:
        """Return the widths of a choice."""
        return {group: int(options[index]) for group, options, index in zip(self.groups, self.widths, choice, strict=True)}


def _position(options: Array, widths: Array) -> Array:
    """Return where (n,) widths lie among a group's options, counted in options; outside them by the step of the nearest two."""
    if len(options) == 1:
        return np.zeros(len(widths))
    after = np.clip(np.searchsorted(options, widths, side="right"), 1, len(options) - 1)
    return np.asarray(after - 1 + (widths - options[after - 1]) / (options[after] - options[after - 1]))


def _between(at: Array, length: int | Array) -> tuple[Array, Array, Array]:
    """Return the entries on both sides of positions in a table of a length, and the share of the right one, which may lie outside 0-1."""
    low = np.clip(np.floor(at).astype(int), 0, np.maximum(np.asarray(length) - 2, 0))
    return low, np.minimum(low + 1, np.asarray(length) - 1), at - low


def _along(table: Array, rows: Array, columns: Array) -> Array:
    """Return a table's values in (n,) rows at positions between its columns."""
    left, right, share = _between(columns, table.shape[1])
    return np.asarray(table[rows, left] * (1 - share) + table[rows, right] * share)
