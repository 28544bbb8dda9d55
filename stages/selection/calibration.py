"""Corrects the latency table of single operators by timing a few whole networks.

The sum of the operators' latencies differs from the network's latency: the runtime adds a cost per node, a profiler adds time, and caches are colder in
a network. Most of the difference is an affine function of the sum, which is fitted to the dense and the narrowest network. If more networks were timed,
the rest is fitted per operator class: a ridge regression of the residuals on each class's input channels, output channels and their product.
"""

from collections.abc import Sequence

import numpy as np

from bonsai.profiles.latency import Calibration, Entry, LatencyTable
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


def calibrate(table: LatencyTable, operators: tuple[Operator, ...], timed: Sequence[tuple[Widths, float]]) -> NetworkLatency:
    """Return the latency model that fits whole networks best.

    Args:
        table: Latency table of the operators.
        operators: Operators of the dense network.
        timed: Widths and milliseconds of whole networks, at least two.

    Raises:
        ValueError: The time does not grow with the table's sum.
    """
    plain = NetworkLatency(table, operators, Calibration())
    sums, measured = np.array([plain.sum_ms(widths) for widths, _ in timed]), np.array([ms for _, ms in timed])
    offset, scale = _line(sums, measured)
    noisy = not scale > 0
    if noisy:
        least_and_largest = [sums.argmin(), sums.argmax()]
        offset, scale = _line(sums[least_and_largest], measured[least_and_largest])
    if not scale > 0 or not np.ptp(sums) > 0:
        raise ValueError("the time does not grow with the table's sum")
    affine = NetworkLatency(table, operators, Calibration(offset_ms=offset, scale=scale))
    if noisy or len(timed) <= LEAST:
        return affine
    corrected = _corrected(table, operators, timed, measured - (offset + scale * sums), scale)
    return affine if corrected is None else NetworkLatency(corrected, operators, Calibration(offset_ms=offset, scale=scale))


def _line(sums: Array, measured: Array) -> tuple[float, float]:
    """Return offset and scale of the line whose relative errors have the least sum of squares."""
    line = np.linalg.lstsq(np.stack([np.ones(len(sums)), sums], 1) / measured[:, None], np.ones(len(sums)), rcond=None)[0]
    return float(line[0]), float(line[1])


def _corrected(
    table: LatencyTable, operators: tuple[Operator, ...], timed: Sequence[tuple[Widths, float]], residual: Array, scale: float
) -> LatencyTable | None:
    """Return the table with the corrections that were fitted to whole networks; None if an operator would get no time or less."""
    classes = _correctable(table, operators)
    measured = np.array([ms for _, ms in timed])
    channels = np.stack([_channels(operators, classes, widths) for widths, _ in timed])  # (networks, classes, 3)
    dense = channels.max(0)
    share = np.array([[_share(table, cls, ci_co) for ci_co in range(3)] for cls in classes]) * scale  # milliseconds of each part at full width
    features = (channels / np.maximum(dense, 1) * (share + 0.01 * share.sum())).reshape(len(timed), -1) / measured[:, None]
    weights = np.linalg.solve(features.T @ features + RIDGE * np.eye(features.shape[1]), features.T @ (residual / measured))
    per_unit = weights.reshape(len(classes), 3) * (share + 0.01 * share.sum()) / np.maximum(dense, 1)
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
