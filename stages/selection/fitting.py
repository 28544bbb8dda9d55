"""Fits the latency table of single operators to a few whole networks that were timed.

The sum of the operators' latencies differs from the network's latency: the runtime adds a cost per node, a profiler adds time, and caches are colder in
a network. Most of the difference is an affine function of the sum, which is fitted first. If more networks were timed, the rest is fitted per operator
class: a ridge regression of the residuals on each class's input channels, output channels and their product.

Selection prefers the networks that the model thinks too fast, so the model is worst for those that are chosen. Those that the closed loop has chosen and
timed therefore count more. To weight the others by their distance from the budget changed nothing (20 pairs of network and budget, each network left out
in turn).
"""

from collections.abc import Sequence

import numpy as np

from bonsai.profiles.latency import Entry, LatencyTable, Line
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.terms import Array

RIDGE = 0.01
LEAST = 4
"""Corrections per class are fitted only with more networks than this; with fewer, only the line is fitted."""
LEAST_GAIN = 0.02
"""A light class is not corrected if it has less than this fraction of the latency that all classes gain from widest to narrowest."""
CHOSEN = 4.0
"""A network that the closed loop chose counts as many times."""

Timed = tuple[Widths, float]
"""Widths of a whole network and its milliseconds."""


class FittedLatency(NetworkLatency):
    """A latency model that was fitted to whole networks, and that learns from more of them.

    Args:
        table: Latency table of the operators, as it was measured or estimated.
        operators: Operators of the dense network.
        timed: Whole networks, at least two.
        chosen: Networks that the closed loop chose.

    Raises:
        ValueError: The time does not grow with the table's sum.
    """

    def __init__(self, table: LatencyTable, operators: tuple[Operator, ...], timed: Sequence[Timed], *, chosen: Sequence[Timed] = ()) -> None:
        self.plain, self.timed, self.chosen = table, tuple(timed), tuple(chosen)
        corrected, line = _fit(table, operators, self.timed, self.chosen)
        super().__init__(corrected, operators, line)

    def survey(self, more: Sequence[Timed]) -> "FittedLatency":
        """Return the model fitted to some more networks, which nobody chose."""
        return FittedLatency(self.plain, self.operators, (*self.timed, *more), chosen=self.chosen)

    def learn(self, chosen: Sequence[Timed]) -> "FittedLatency":
        """See `LatencyModel`."""
        return FittedLatency(self.plain, self.operators, self.timed, chosen=(*self.chosen, *chosen))


def _fit(table: LatencyTable, operators: tuple[Operator, ...], timed: Sequence[Timed], chosen: Sequence[Timed]) -> tuple[LatencyTable, Line]:
    """Return the table, corrected by class where there are networks enough, and the line from its sums to milliseconds."""
    plain, networks = NetworkLatency(table, operators, Line()), (*timed, *chosen)
    sums, measured = np.array([plain.sum_ms(widths) for widths, _ in networks]), np.array([ms for _, ms in networks])
    counts = np.array([1.0] * len(timed) + [CHOSEN] * len(chosen))
    line = _line(sums, measured, counts)
    noisy = not line.scale > 0
    if noisy:
        edges = [sums[: len(timed)].argmin(), sums[: len(timed)].argmax()]  # of the survey alone, so that learning cannot fail
        line = _line(sums[edges], measured[edges], np.ones(2))
    if not line.scale > 0 or not np.ptp(sums[: len(timed)]) > 0:
        raise ValueError("the time does not grow with the table's sum")
    if noisy or len(networks) <= LEAST:
        return table, line
    residual = measured - (line.offset_ms + line.scale * sums)
    return _corrected(table, operators, networks, residual, counts, line.scale) or table, line


def _line(sums: Array, measured: Array, counts: Array) -> Line:
    """Return the line whose relative errors have the least sum of squares, each times its count."""
    weights = np.sqrt(counts)
    offset, scale = np.linalg.lstsq(np.stack([np.ones(len(sums)), sums], 1) / measured[:, None] * weights[:, None], weights, rcond=None)[0]
    return Line(offset_ms=float(offset), scale=float(scale))


def _corrected(
    table: LatencyTable, operators: tuple[Operator, ...], networks: Sequence[Timed], residual: Array, counts: Array, scale: float
) -> LatencyTable | None:
    """Return the table with the corrections that were fitted to whole networks; None if an operator would get no time or less."""
    classes = _correctable(table, operators)
    measured = np.array([ms for _, ms in networks])
    channels = np.stack([_channels(operators, classes, widths) for widths, _ in networks])  # (networks, classes, 3)
    dense = channels.max(0)
    share = np.array([[_share(table, cls, ci_co) for ci_co in range(3)] for cls in classes]) * scale  # milliseconds of each part at full width
    weights = np.sqrt(counts) / measured
    features = (channels / np.maximum(dense, 1) * (share + 0.01 * share.sum())).reshape(len(networks), -1) * weights[:, None]
    found = np.linalg.solve(features.T @ features + RIDGE * np.eye(features.shape[1]), features.T @ (residual * weights))
    per_unit = found.reshape(len(classes), 3) * (share + 0.01 * share.sum()) / np.maximum(dense, 1)
    added = {cls: per_unit[index] / scale * 1e3 for index, cls in enumerate(classes)}
    entries = [_moved(entry, added[entry.operator]) if entry.operator in added else entry for entry in table.entries]
    return LatencyTable(table.meta, entries) if all(entry.p50_us > 0 for entry in entries) else None


def _correctable(table: LatencyTable, operators: Sequence[Operator]) -> list[OperatorClass]:
    """Return the classes that whole networks tell something of: not the light ones that hardly gain, which a correction would make negative."""
    gains = {cls: sum(_share(table, cls, part) for part in range(3)) for cls in dict.fromkeys(operator.operator for operator in operators)}
    return [cls for cls, gain in gains.items() if not cls.is_light or gain >= LEAST_GAIN * sum(gains.values())]


def _channels(operators: Sequence[Operator], classes: list[OperatorClass], widths: Widths) -> Array:
    """Return the sums over each class of input channels, output channels and their products."""
    found = np.zeros((len(classes), 3))
    for operator in (operator for operator in operators if operator.operator in classes):
        ci, co = operator.channels(widths)
        found[classes.index(operator.operator)] += (0, co, 0) if operator.operator.one_axis else (ci, co, ci * co)
    return found


def _share(table: LatencyTable, cls: OperatorClass, part: int) -> float:
    """Return the milliseconds that an operator of a class gains from its narrowest to its widest entry, one part of three."""
    times = [entry.p50_us / 1e3 for entry in table.entries if entry.operator == cls]
    return (max(times) - min(times)) * (0.25, 0.25, 0.5)[part]


def _moved(entry: Entry, added: Array) -> Entry:
    ci = 0 if entry.operator.one_axis else entry.ci
    more = float(added @ np.array([ci, entry.co, ci * entry.co]))
    return entry.model_copy(update={"p50_us": entry.p50_us + more, "p10_us": entry.p10_us + more})
