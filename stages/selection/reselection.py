"""Choosing the widths again between two cuts, within the same latency budget."""

from functools import cached_property

from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.criteria import Normalisation
from bonsai.stages.pruning.groups import Group, Widths
from bonsai.stages.pruning.scores import Scores, normalise
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.terms import Options
from bonsai.stages.selection.values import Value, values_of


class Reselection(Record):
    """A budget and everything that selection within it needs.

    Attributes:
        options: Widths that each group may keep.
        limit_ms: Budget in milliseconds, by the fitted latency model.
        value: The value of widths, whose sum selection maximises.
        normalisation: How the scores of different groups are made comparable.
        meta: Origin of the table.
        entries: The table.
        operators: The dense network's operators.
        line: From the table's sum to the whole network.
    """

    options: dict[str, tuple[int, ...]]
    limit_ms: float
    value: Value
    normalisation: Normalisation
    meta: TableMeta
    entries: tuple[Entry, ...]
    operators: tuple[Operator, ...]
    line: Line

    @classmethod
    def within(cls, limit_ms: float, latency: NetworkLatency, options: Options, value: Value, normalisation: Normalisation) -> "Reselection":
        """Return what choosing again within a budget by this prediction needs."""
        return cls(
            options={name: tuple(widths) for name, widths in options.items()},
            limit_ms=limit_ms,
            value=value,
            normalisation=normalisation,
            meta=latency.table.meta,
            entries=latency.table.entries,
            operators=latency.operators,
            line=latency.line,
        )

    @cached_property
    def latency(self) -> NetworkLatency:
        """The fitted prediction."""
        return NetworkLatency(LatencyTable(self.meta, self.entries), self.operators, self.line)

    def choose(self, scores: Scores, groups: tuple[Group, ...]) -> Widths:
        """Return the widths of most value now, none wider than what is left of its group. Blocks that are there stay, and the others are gone.

        Args:
            scores: Scores of the channels that are left.
            groups: Those channels.
        """
        left = {group.name: group.width for group in groups}
        options = {name: tuple(width for width in widths if 0 < width <= left[name]) if name in left else (0,) for name, widths in self.options.items()}
        comparable = normalise(scores, tuple(group for group in groups if group.name in options), self.normalisation)
        values = values_of(self.value, {name: vector.tolist() for name, vector in comparable.items()}, options, self.operators)
        return select_widths(values, options, self.latency, self.limit_ms).widths
