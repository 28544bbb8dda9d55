"""Predicted latency of a network as a function of its widths."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bonsai.profiles.latency import LatencyTable, Line
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Precision
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.terms import Array, Options, SumTerm, Terms


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
    """

    precision: Precision
    overhead_ms: float
    operators: tuple[OperatorForecast, ...]

    @property
    def dense_ms(self) -> float:
        """Milliseconds of the dense network."""
        return self.overhead_ms + sum(operator.dense_ms for operator in self.operators)

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
        return sum(self.table.lookup_ms(operator.operator, *operator.channels(widths)) for operator in self.operators)

    def __call__(self, widths: Widths) -> float:
        """Return the latency of the whole network in milliseconds."""
        return self.line.offset_ms + self.line.scale * self.sum_ms(widths)

    def forecast(self, dense: Widths, kept: Widths) -> Forecast:
        """Return the latency of every operator at the dense and at the kept widths."""

        def milliseconds(operator: Operator, widths: Widths) -> float:
            return self.line.scale * self.table.lookup_ms(operator.operator, *operator.channels(widths))

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
        """Return the latency as tables over the options of every group, which must be all groups of the operators."""
        gathered = _Gathered(options)
        for operator in self.operators:
            gathered.add(operator, self.table, self.line.scale)
        return Terms(options, constant=self.line.offset_ms + gathered.constant, unary=gathered.unary, pairs=gathered.pairs, sums=gathered.sums)


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
        inputs, output = dict(operator.inputs), operator.output
        outputs = np.array([operator.fixed_outputs]) if output is None else self.widths[output]
        if len(inputs) > 1:
            self._add_sum(operator, table, scale, outputs)
            return
        group = next(iter(inputs), None)
        ins = operator.fixed_inputs + (self.widths[group] * inputs[group] if group else np.zeros(1, dtype=int))
        if group is not None and group == output:
            self._add_unary(group, scale * table.lookup_ms(operator.operator, ins, outputs))
            return
        found = scale * table.lookup_ms(operator.operator, ins[:, None], outputs[None])
        if group and output:
            self._add_pair(group, output, found)
        elif group or output:
            self._add_unary(group or output or "", found[:, 0] if group else found[0])
        else:
            self.constant += float(found[0, 0])

    def _add_sum(self, operator: Operator, table: LatencyTable, scale: float, outputs: Array) -> None:
        """Add an operator on several joined groups: as pairs where its time is bilinear in the channels, else as it is."""
        parts = {group: self.widths[group] * factor for group, factor in operator.inputs}
        unit = int(np.gcd.reduce(np.concatenate(list(parts.values()))))
        parts = {group: part // unit for group, part in parts.items()}
        channels = operator.fixed_inputs + unit * np.arange(sum(int(part.max()) for part in parts.values()) + 1)
        found = scale * table.lookup_ms(operator.operator, channels[:, None], outputs[None])
        slope = found[-1] - found[0] if len(channels) > 1 else np.zeros(len(outputs))
        line = found[0] + np.linspace(0, 1, len(channels))[:, None] * slope
        if not np.allclose(found, line, rtol=1e-9, atol=1e-12):
            named = {self.place[group]: part for group, part in parts.items()}
            self.sums.append(SumTerm(named, None if operator.output is None else self.place[operator.output], found))
            return
        per_channel = slope / max(len(channels) - 1, 1)
        for group, part in parts.items():
            block = part[:, None] * per_channel
            if operator.output is None:
                self._add_unary(group, block[:, 0])
            elif operator.output == group:
                self._add_unary(group, np.diagonal(block).copy())
            else:
                self._add_pair(group, operator.output, block)
        if operator.output is None:
            self.constant += float(found[0, 0])
        else:
            self._add_unary(operator.output, found[0])

    def _add_unary(self, group: str, table: Array) -> None:
        self.unary[group] = self.unary.get(group, np.zeros(len(self.widths[group]))) + table

    def _add_pair(self, first: str, second: str, table: Array) -> None:
        if (second, first) in self.pairs:
            first, second, table = second, first, table.T
        self.pairs[first, second] = self.pairs.get((first, second), np.zeros(table.shape)) + table
