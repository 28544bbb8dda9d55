import numpy as np
import pytest

from bonsai.stages.explanation.faults import of_bias, of_grid, of_levels, of_range, of_weights
from bonsai.stages.explanation.probing import Grid

DRAWN = np.random.default_rng(0)
WEIGHTS = np.round(DRAWN.uniform(-127, 127, (8, 6, 3, 3))).astype(np.float32) / 127
GRID = Grid(0.1, 0)


def rounded(levels: int) -> np.ndarray:
    return np.round(WEIGHTS * levels) / levels


def exchanged(axis: int) -> np.ndarray:
    changed = np.moveaxis(WEIGHTS.copy(), axis, 0)
    changed[[0, 3]] = changed[[3, 0]]
    return np.moveaxis(changed, 0, axis)


def one_channel_half() -> np.ndarray:
    changed = WEIGHTS.copy()
    changed[2] *= 0.5
    return changed


@pytest.mark.parametrize(
    ("found", "kind", "seen"),
    [
        (WEIGHTS * 1.25, "weight scale", "the weights of 8 of 8 channels are 1.25 times as large"),
        (one_channel_half(), "weight scale", "the weights of 1 of 8 channels are 0.5 times as large"),
        (rounded(7), "few bits", "8 different sizes"),
        (exchanged(0), "channel order", "2 of 8 channels hold the weights of another one"),
        (exchanged(1), "channel order", "2 of 6 channels hold the weights of another one"),
        (WEIGHTS + 0.3 * DRAWN.standard_normal(WEIGHTS.shape), "other weights", "differ from those that it should have by"),
        (np.concatenate([WEIGHTS, WEIGHTS]), "other width", "16 x 6 x 3 x 3 instead of 8 x 6 x 3 x 3"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 15 else "",
)
def test_weights_that_differ_tell_how(found: np.ndarray, kind: str, seen: str) -> None:
    fault = of_weights(found, WEIGHTS)
    assert fault is not None
    assert fault.kind == kind
    assert seen in fault.seen


def test_integers_that_are_all_multiples_tell_of_few_bits_however_few_weights_there_are() -> None:
    integers = np.array([[16, -32, 48], [64, 0, -112]], np.int8)
    fault = of_weights(integers / np.float32(127), (integers + 5) / np.float32(127), integers)
    assert fault is not None
    assert (fault.kind, fault.seen) == ("few bits", "its integers are all multiples of 16, as of weights of 4 bits")


def test_weights_that_differ_by_rounding_alone_are_the_same() -> None:
    assert of_weights(WEIGHTS * (1 + 1e-4 * DRAWN.standard_normal(WEIGHTS.shape)), WEIGHTS) is None


@pytest.mark.parametrize(
    ("found", "wanted", "seen"),
    [
        (np.ones(4), np.ones(4), None),
        (None, None, None),
        (None, np.zeros(4), None),
        (None, np.ones(4), "it has no bias"),
        (np.zeros(4), np.ones(4), "it has no bias"),
        (np.array([1, 1, 1, 2.0]), np.ones(4), "by 50% of its size"),
        (np.ones(5), np.ones(4), "5 instead of 4"),
    ],
)
def test_a_bias_that_differs_tells_how(found: np.ndarray | None, wanted: np.ndarray | None, seen: str | None) -> None:
    fault = of_bias(found, wanted)
    assert fault is None if seen is None else fault is not None and seen in fault.seen


@pytest.mark.parametrize(
    ("found", "kind"),
    [(GRID, None), (None, None), (Grid(0.1004, 0), None), (Grid(0.05, 0), "clipping"), (Grid(0.4, 0), "coarse scale"), (Grid(0.1, 9), "zero-point")],
)
def test_a_grid_that_differs_tells_how(found: Grid | None, kind: str | None) -> None:
    fault = of_grid(found, GRID)
    assert (fault and fault.kind) == kind


@pytest.mark.parametrize(("scale", "kind"), [(10 / 255, None), (3 / 255, "clipping"), (250 / 255, "coarse scale")])
def test_values_tell_of_a_grid_that_nobody_knows_another_of(scale: float, kind: str | None) -> None:
    fault = of_range(DRAWN.uniform(0, 10, 1000), Grid(scale, 0), (0, 255))
    assert (fault and fault.kind) == kind


def test_weights_of_few_levels_are_told_where_nobody_knows_others() -> None:
    assert of_levels(np.tile(WEIGHTS, (1, 2, 1, 1))) is None
    fault = of_levels(np.tile(rounded(3), (1, 2, 1, 1)))
    assert fault is not None
    assert fault.kind == "few bits"
