import numpy as np
import pytest

from stages.intervals import images_to_prove, least_provable_drop, paired_drop, wilson


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


@pytest.mark.parametrize("images", [60, 75, 360])
def test_the_least_provable_drop_is_the_upper_end_where_nothing_differs(images: int) -> None:
    hits = np.ones(images, dtype=bool)
    assert least_provable_drop(images) == pytest.approx(paired_drop(hits, hits)[2])
    after = hits.copy()
    after[:3] = False
    before = np.roll(after, 3)
    assert least_provable_drop(images, 6 / images) == pytest.approx(paired_drop(before, after)[2], rel=0.02)


def test_so_many_images_prove_a_drop_and_one_less_does_not() -> None:
    images = images_to_prove(0.02)
    assert images == 96
    assert least_provable_drop(images) <= 0.02 < least_provable_drop(images - 1)
