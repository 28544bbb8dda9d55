"""Predicted latency of a network as a function of its widths."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from bonsai.profiles.latency import LatencyTable, Line
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Precision
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.selection.operator_records import Operator, blocks_in
from bonsai.stages.selection.terms import Array, Options, SumTerm, Terms

NEVER_MS = 1e6
"""Milliseconds of what cannot be: a block of which only a part is left out."""


class LatencyModel(Protocol):
    """What selection asks of a prediction."""

    def __call__(self, widths: Widths) -> float:
        """Return the milliseconds of a network of these widths."""
        ...

    def terms(self, options: Options) -> Terms:
        """Return the same as tables over the options of every group."""
        ...

    def learn(self, chosen: Sequence[tuple[Widths, float]]) -> "LatencyModel":
        """Return the model that is fitted to these networks too: the widths and milliseconds of those that were chosen by it and timed."""
        ...


class OperatorForecast(Record):
    """One operator's predicted milliseconds in the dense and in the pruned network.

    Attributes:
        dense: Input and output channels of the dense network.
        kept: Those of the pruned one.
    """

    module: str
    operator: OperatorClass
    dense: tuple[int, int]
    kept: tuple[int, int]
    dense_ms: float
    kept_ms: float


class Forecast(Record):
    """Predicted latency of a network before and after pruning, both at the same precision.

    Attributes:
        overhead_ms: Constant that is added to the sum of the operators.
        dense_overhead_ms: That of the dense network, where it takes larger images; None where it is the same.
    """

    precision: Precision
    overhead_ms: float
    operators: tuple[OperatorForecast, ...]
    dense_overhead_ms: float | None = None

    def beside(self, dense: "Forecast") -> "Forecast":
        """Return the same, with the dense network's milliseconds of another forecast of the same operators."""
        pairs = zip(self.operators, dense.operators, strict=True)
        operators = tuple(own.model_copy(update={"dense_ms": full.dense_ms}) for own, full in pairs)
        return self.model_copy(update={"operators": operators, "dense_overhead_ms": dense.overhead_ms})

    @property
    def dense_ms(self) -> float:
        """Milliseconds of the dense network."""
        constant = self.overhead_ms if self.dense_overhead_ms is None else self.dense_overhead_ms
        return constant + sum(operator.dense_ms for operator in self.operators)

    @property
    def kept_ms(self) -> float:
        """Milliseconds of the pruned network."""
        return self.overhead_ms + sum(operator.kept_ms for operator in self.operators)


class NetworkLatency:
    """A line over the sum of a table's operators."""

    def __init__(self, table: LatencyTable, operators: tuple[Operator, ...], line: Line) -> None:
        self.table = table
        self.operators = operators
        self.line = line

    def learn(self, chosen: Sequence[tuple[Widths, float]]) -> "NetworkLatency":
        """Return the model as it is: nothing was fitted."""
        return self

    def sum_ms(self, widths: Widths) -> float:
        """Return the sum over the operators in milliseconds."""
        return sum(self._operator_ms(operator, widths) for operator in self.operators)

    def _operator_ms(self, operator: Operator, widths: Widths) -> float:
        return self.table.lookup_ms(operator.operator, *operator.channels(widths)) if operator.is_there(widths) else 0.0

    def __call__(self, widths: Widths) -> float:
        """Return the latency of the whole network in milliseconds."""
        return self.line.offset_ms + self.line.scale * self.sum_ms(widths)

    def forecast(self, dense: Widths, kept: Widths) -> Forecast:
        """Return the latency of every operator at the dense and at the kept widths."""

        def milliseconds(operator: Operator, widths: Widths) -> float:
            return self.line.scale * self._operator_ms(operator, widths)

        operators = [
            OperatorForecast(
                module=operator.module,
                operator=operator.operator,
                dense=operator.channels(dense),
                kept=operator.channels(kept),
                dense_ms=milliseconds(operator, dense),
                kept_ms=milliseconds(operator, kept),
            )
            for operator in self.operators
        ]
        return Forecast(precision=self.table.meta.precision, overhead_ms=self.line.offset_ms, operators=tuple(operators))

    def terms(self, options: Options) -> Terms:
        """Return the latency as tables over the options of every group, which must be all groups of the operators.

        Where a block may be left out, options of which some keep channels of it and some none have `NEVER_MS`.
        """
        gathered = _Gathered(options)
        for operator in self.operators:
            gathered.add(operator, self.table, self.line.scale)
        together = [block for block in blocks_in(self.operators) if all(min(options[group]) == 0 < max(options[group]) for group in block)]
        for block in together:
            gathered.keep_together(block)
        constant = self.line.offset_ms + gathered.constant
        return Terms(options, constant=constant, unary=gathered.unary, pairs=gathered.pairs, sums=gathered.sums, together=together)


class _Gathered:
    """Tables of the operators by the groups that they depend on; those of the same groups are added up."""

    def __init__(self, options: Options) -> None:
        self.widths = {group: np.array(widths) for group, widths in options.items()}
        self.place = {group: index for index, group in enumerate(options)}
        self.constant = 0.0
        self.unary: dict[str, Array] = {}
        self.pairs: dict[tuple[str, str], Array] = {}
        self.sums: list[SumTerm] = []

    def add(self, operator: Operator, table: LatencyTable, scale: float) -> None:
        rows, ins = self._side(operator.inputs, operator.fixed_inputs)
        columns, outs = self._side(operator.outputs, operator.fixed_outputs)
        inside = self._may_leave(operator.block)
        if len(rows) == 1 and rows.keys() == columns.keys():
            self._add_where_there(inside, next(iter(rows)), None, (scale * table.lookup_ms(operator.operator, ins, outs))[:, None])
            return
        found = scale * table.lookup_ms(operator.operator, ins[:, None], outs[None])
        if not (_adds_up(found, rows) and _adds_up(found.T, columns)):
            self._add_sum(inside, rows, columns, found)
            return
        for group, block in _taken_apart(found, rows):
            for other, turned in _taken_apart(block.T, columns):
                self._add_where_there(inside, group, other, turned.T)

    def keep_together(self, block: tuple[str, ...]) -> None:
        """Forbid options of which some keep channels of a block and some none."""
        first, *others = block
        for other in others:
            apart = (self.widths[first] > 0)[:, None] != (self.widths[other] > 0)[None]
            self._add_pair(first, other, NEVER_MS * apart)

    def _may_leave(self, block: tuple[str, ...]) -> tuple[str, ...]:
        """Return the groups of a block, where it may be left out."""
        return block if any(0 in self.widths[group] for group in block) else ()

    def _add_where_there(self, inside: tuple[str, ...], group: str | None, other: str | None, table: Array) -> None:
        """Add a table, where the groups of the operator's block keep channels."""
        within = [name for name in (group, other) if name in inside]
        if not inside:
            self._add(group, other, table)
        elif within:
            there = [self.widths[name] > 0 if name in inside else np.ones(len(side), dtype=bool) for name, side in ((group, table), (other, table.T))]
            self._add(group, other, table * there[0][:, None] * there[1][None])
        elif group and other:
            self._add_sum(inside, {group: np.arange(len(table))}, {other: np.arange(len(table.T))}, table)
        else:
            beside = group or other
            self._add(inside[0], beside, (self.widths[inside[0]] > 0)[:, None] * (table.reshape(1, -1) if beside else table))

    def _add_sum(self, inside: tuple[str, ...], rows: Mapping[str, Array], columns: Mapping[str, Array], table: Array) -> None:
        """Add a table over sums of options; where its block may be left out, the rows without the block come first."""
        if inside:
            there = len(table) * (self.widths[inside[0]] > 0)
            rows = {**rows, inside[0]: rows.get(inside[0], 0) + there}
            table = np.concatenate([np.zeros_like(table), table])
        placed = [{self.place[group]: part for group, part in side.items()} for side in (rows, columns)]
        self.sums.append(SumTerm(placed[0], placed[1], table))

    def _side(self, groups: tuple[tuple[str, int], ...], fixed: int) -> tuple[dict[str, Array], Array]:
        """Return one side of an operator's table: where the options of every group lie in it, and its channels.

        With one group, the table has a row per option. With several, it has a row per multiple of the greatest common divisor of their channels.
        """
        channels = {group: self.widths[group] * positions for group, positions in groups}
        if len(channels) == 1:
            return {group: np.arange(len(each)) for group, each in channels.items()}, fixed + next(iter(channels.values()))
        unit = int(np.gcd.reduce(np.concatenate(list(channels.values())))) if channels else 1
        parts = {group: each // unit for group, each in channels.items()}
        return parts, fixed + unit * np.arange(sum(int(part.max()) for part in parts.values()) + 1)

    def _add(self, group: str | None, other: str | None, table: Array) -> None:
        """Add a table over the options of an input's group and of an output's group, (1, ...) or (..., 1) of none."""
        if group and other and group != other:
            self._add_pair(group, other, table)
        elif group and other:
            self._add_unary(group, np.diagonal(table).copy())
        elif group or other:
            self._add_unary(group or other or "", table[:, 0] if group else table[0])
        else:
            self.constant += float(table[0, 0])

    def _add_unary(self, group: str, table: Array) -> None:
        self.unary[group] = self.unary.get(group, np.zeros(len(self.widths[group]))) + table

    def _add_pair(self, first: str, second: str, table: Array) -> None:
        if (second, first) in self.pairs:
            first, second, table = second, first, table.T
        self.pairs[first, second] = self.pairs.get((first, second), np.zeros(table.shape)) + table


def _adds_up(table: Array, parts: Mapping[str, Array]) -> bool:
    """Return whether a table is the sum of one table per group of its rows. With one group it is; with several, if it grows evenly from row to row."""
    if len(parts) < 2:
        return True
    line = table[0] + np.linspace(0, 1, len(table))[:, None] * (table[-1] - table[0])
    return np.allclose(table, line, rtol=1e-9, atol=1e-12)


def _taken_apart(table: Array, parts: Mapping[str, Array]) -> list[tuple[str | None, Array]]:
    """Split a table that adds up: one table per group with its options as rows, and with several groups one row that belongs to none."""
    if len(parts) == 1:
        return [(group, table) for group in parts]
    slope = (table[-1] - table[0]) / max(len(table) - 1, 1)
    return [*((group, part[:, None] * slope) for group, part in parts.items()), (None, table[:1])]
