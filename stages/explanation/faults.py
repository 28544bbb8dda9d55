"""What is wrong with a layer: its parameters beside those that it should have."""

import math
from typing import Literal, NamedTuple

import numpy as np

from bonsai.stages.explanation.probing import Grid, difference

Kind = Literal[
    "weight scale",
    "few bits",
    "channel order",
    "other weights",
    "other width",
    "bias",
    "clipping",
    "coarse scale",
    "zero-point",
    "float",
    "extra operator",
    "runtime",
    "rounding",
    "slow",
]
"""Kinds of faults. The last three are found without parameters: the runtime computes something else, rounding costs most here, the layer takes too long."""

SAME_WEIGHTS, SAME_BIAS, SAME_SCALE = 0.01, 0.02, 0.01
"""Largest relative differences that are no fault. Exports of clean packages had 0.00000, 0.0006 and 0 (four recipes of this project)."""
GAIN_ALONE = 0.02
"""Weights differ by factors alone if less than this is left of them without the factors."""
ORDERED = 0.9
"""Smallest cosine at which two channels have the same weights."""


class Fault(NamedTuple):
    """What is wrong, and by what it was seen, as the end of a sentence about the layer."""

    kind: Kind
    seen: str


def of_weights(found: np.ndarray, wanted: np.ndarray, integers: np.ndarray | None = None) -> Fault | None:
    """Return in what weights differ from those wanted; None if they are the same.

    Args:
        found: Dequantised, with the outputs on the first or second side.
        wanted: The same.
        integers: Those that the found ones are stored as; None if they are in float.
    """
    if found.shape != wanted.shape:
        return Fault("other width", f"its weights have the shape {_sides(found)} instead of {_sides(wanted)}")
    apart = difference(found, wanted)
    if apart <= SAME_WEIGHTS:
        return None
    for axis in range(min(2, found.ndim)):
        moved = _moved(*(np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in (found, wanted)))
        if moved > 1:
            return Fault("channel order", f"{moved} of {found.shape[axis]} channels hold the weights of another one")
    gains = _gains(found, wanted)
    if gains is not None:
        wrong = gains[np.abs(gains - 1) > SAME_WEIGHTS]
        return Fault("weight scale", f"the weights of {len(wrong)} of {len(gains)} channels are {_times(wrong)} as large as they should be")
    step = 1 if integers is None else int(np.gcd.reduce(np.abs(integers.astype(np.int32)), axis=None))
    if step > 1:
        return Fault("few bits", f"its integers are all multiples of {step}, as of weights of {8 - math.floor(math.log2(step))} bits")
    levels, usual = (int(max(len(np.unique(np.abs(row))) for row in _rows(each))) for each in (found, wanted))
    if levels <= usual / 2:
        return Fault("few bits", f"a channel's weights have {levels} different sizes instead of {usual}, as of {math.ceil(math.log2(max(levels, 2))) + 1} bits")
    return Fault("other weights", f"its weights differ from those that it should have by {apart:.0%} of their size")


def of_levels(weight: np.ndarray) -> Fault | None:
    """Return whether rounded weights use few of their levels, where nobody knows the weights that there should be."""
    rows = _rows(weight)
    levels = max(len(np.unique(np.abs(row))) for row in rows)
    return Fault("few bits", f"a channel of {rows.shape[1]} weights has {levels} different sizes") if rows.shape[1] >= 64 and levels <= 16 else None


def of_bias(found: np.ndarray | None, wanted: np.ndarray | None) -> Fault | None:
    """Return in what a bias differs from that wanted; None if it is the same."""
    if wanted is None or not np.any(wanted):
        return None
    if found is None or not np.any(found):
        return Fault("bias", "it has no bias, and should have one")
    if found.shape != wanted.shape:
        return Fault("other width", f"its bias has the shape {_sides(found)} instead of {_sides(wanted)}")
    apart = difference(found, wanted)
    return None if apart <= SAME_BIAS else Fault("bias", f"its bias differs from the one that it should have by {apart:.0%} of its size")


def of_grid(found: Grid | None, wanted: Grid | None) -> Fault | None:
    """Return in what the grid of a layer's output differs from that wanted; None if it is the same, or if one of them is not known."""
    if found is None or wanted is None:
        return None
    ratio = found.scale / wanted.scale
    if abs(ratio - 1) > SAME_SCALE:
        kind: Kind = "clipping" if ratio < 1 else "coarse scale"
        what = "large values are cut off" if ratio < 1 else "small differences are lost"
        return Fault(kind, f"the scale of its output is {_number(ratio)} times what it should be, so {what}")
    if found.zero_point != wanted.zero_point:
        return Fault("zero-point", f"the zero-point of its output is {found.zero_point} instead of {wanted.zero_point}")
    return None


def of_range(values: np.ndarray, grid: Grid, levels: tuple[int, int]) -> Fault | None:
    """Return what is wrong with a grid by the values that it is to hold, where nobody knows which grid there should be.

    Args:
        values: Before they are rounded.
        grid: The grid.
        levels: Lowest and highest integer.
    """
    low, high = ((level - grid.zero_point) * grid.scale for level in levels)
    cut = difference(np.clip(values, low, high), values)
    if cut > 0.1:
        share = float(np.mean((values < low - grid.scale) | (values > high + grid.scale)))
        return Fault("clipping", f"{share:.0%} of its values lie outside of {low:.3g} to {high:.3g}, which costs {cut:.0%} of their size")
    used = float(values.max() - min(values.min(), 0)) / grid.scale
    return Fault("coarse scale", f"its values use {used:.0f} of {levels[1] - levels[0]} levels") if 0 < used < 16 else None


def _moved(found: np.ndarray, wanted: np.ndarray) -> int:
    """Return how many rows are those of another place."""
    sizes = [np.linalg.norm(each, axis=1, keepdims=True) for each in (found, wanted)]
    if found.shape[1] < 2 or len(found) < 2:
        return 0
    alike = (found / np.maximum(sizes[0], 1e-12)) @ (wanted / np.maximum(sizes[1], 1e-12)).T
    own = np.diag(alike)
    return int(np.sum((alike.max(axis=1) > ORDERED) & (own < alike.max(axis=1) - (1 - ORDERED))))


def _gains(found: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Return the factor of each channel, or None if not factors alone make the difference."""
    for axis in range(min(2, found.ndim)):
        ours, theirs = (np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1).astype(np.float64) for each in (found, wanted))
        gains: np.ndarray = np.sum(ours * theirs, axis=1) / np.maximum(np.sum(theirs * theirs, axis=1), 1e-24)
        if np.any(np.abs(gains - 1) > SAME_WEIGHTS) and difference(gains[:, None] * theirs, ours) < GAIN_ALONE:
            return gains
    return None


def _rows(weights: np.ndarray) -> np.ndarray:
    """Return weights by channel, whole steps of which they are made, as near as float32 tells."""
    rows = weights.reshape(len(weights), -1).astype(np.float64)
    steps: np.ndarray = np.round(rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12), 4)
    return steps


def _times(gains: np.ndarray) -> str:
    low, high = float(gains.min()), float(gains.max())
    return f"{_number(low)} times" if abs(high - low) < 0.02 * abs(high) else f"{_number(low)} to {_number(high)} times"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _sides(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape)) or "()"
