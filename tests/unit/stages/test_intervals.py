import numpy as np
import pytest

from stages.intervals import paired_drop, wilson


def test_wilsons_interval_of_a_perfect_score_leaves_room() -> None:
    low, high = wilson(np.ones(360, dtype=bool))
    assert (low, high) == (pytest.approx(0.98944, abs=1e-4), 1.0)


def test_a_drop_on_the_same_images_is_told_with_its_interval() -> None:
    before, after = np.ones(1000, dtype=bool), np.ones(1000, dtype=bool)
    after[:20], before[20:30] = False, False
    drop, low, high = paired_drop(before, after)
    assert drop == pytest.approx(0.01)
    assert low < 0.01 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(30) / 1000, rel=0.05)


def test_networks_that_never_differ_may_still_differ_elsewhere() -> None:
    hits = np.ones(360, dtype=bool)
    drop, low, high = paired_drop(hits, hits)
    assert drop == 0
    assert -low == pytest.approx(high) == pytest.approx(0.0054, abs=2e-4)
