import time

import numpy as np
import pytest
from interval_coverage import NOMINAL, SLACK, exact_error, simulated_error

from bonsai.stages.tasks.intervals import Z, images_to_prove, least_provable_drop, paired_drop, tango, wilson_of_share


def hits(images: int, lost: int = 0, won: int = 0) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.ones(images, dtype=bool), np.ones(images, dtype=bool)
    after[:lost], before[lost : lost + won] = False, False
    return before, after


@pytest.mark.parametrize(("right", "of", "low", "high"), [(360, 360, 0.98944, 1.0), (9, 10, 0.59585, 0.98212), (0, 5, 0.0, 0.43448)])
def test_wilsons_interval_is_that_of_the_tables(right: int, of: int, low: float, high: float) -> None:
    assert wilson_of_share(right / of, of) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wilsons_interval_holds_the_share_for_any_number_of_images(share: float) -> None:
    assert [images for images in range(1, 2000) if not 0 <= (ends := wilson_of_share(share, images))[0] <= share <= ends[1] <= 1] == []


def test_a_drop_on_the_same_images_is_told_with_its_interval() -> None:
    drop, low, high = paired_drop(*hits(1000, lost=20, won=10))
    assert drop == pytest.approx(0.01)
    assert low < 0.01 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(30) / 1000, rel=0.06)


@pytest.mark.parametrize(("lost", "won", "images"), [(12, 2, 100), (14, 1, 30), (1, 2, 54), (1, 30, 40), (3, 3, 5000)])
def test_tangos_interval_solves_his_equation(lost: int, won: int, images: int) -> None:
    for end in tango(lost, won, images):
        linear = -lost - won + (2 * images - lost + won) * end
        q = (np.sqrt(linear**2 + 8 * images * won * end * (1 - end)) - linear) / (4 * images)
        score = (lost - won - images * end) / np.sqrt(images * (2 * q + end * (1 - end)))
        assert abs(score) == pytest.approx(Z, abs=1e-6)


@pytest.mark.parametrize("images", [1, 5, 48, 360])
def test_networks_that_never_differ_may_still_differ_elsewhere(images: int) -> None:
    drop, low, high = paired_drop(*hits(images))
    assert drop == 0
    assert -low == pytest.approx(high) == pytest.approx(Z**2 / (images + Z**2))


def test_an_interval_holds_its_estimate_and_stays_within_what_is_possible() -> None:
    lost, won = (part.ravel() for part in np.meshgrid(np.arange(13), np.arange(13)))
    lost, won = lost[lost + won <= 12], won[lost + won <= 12]
    low, high = tango(lost, won, 12)
    assert np.all((low >= -1) & (low <= (lost - won) / 12) & ((lost - won) / 12 <= high) & (high <= 1))
    assert np.allclose(low, -tango(won, lost, 12)[1])


@pytest.mark.parametrize("images", [48, 96, 189, 360, 1000])
def test_a_true_drop_passes_the_gate_no_more_often_than_nominal(images: int) -> None:
    started = time.monotonic()
    for disagreement in (0.02, 0.021, 0.025, 0.03, 0.05, 0.1, 0.2, 0.4):
        error = exact_error(lambda lost, won, n: tango(lost, won, n)[1], images=images, drop=0.02, disagreement=disagreement)
        assert error <= NOMINAL + SLACK
    assert time.monotonic() - started < 2


def test_the_test_of_coverage_sees_an_interval_that_passes_too_much() -> None:
    def agresti_min(lost: np.ndarray, won: np.ndarray, n: int) -> np.ndarray:
        b, c = lost + 0.5, won + 0.5
        return (b - c) / (n + 2) + Z * np.sqrt(b + c - (b - c) ** 2 / (n + 2)) / (n + 2)

    found = [exact_error(agresti_min, images=images, drop=0.02, disagreement=0.02) for images in (96, 360, 1000)]
    assert found == pytest.approx([0.144, 0.070, 0.038], abs=1e-3)


def test_simulating_and_counting_all_outcomes_agree() -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        chance = np.random.default_rng(seed).random(60)
        return chance >= 0.05, (chance < 0.05) | (chance >= 0.20)

    counted = exact_error(lambda lost, won, n: tango(lost, won, n)[1], images=60, drop=0.1, disagreement=0.2)
    simulated = simulated_error(lambda before, after: paired_drop(before, after)[2], draw, loss=0.1, rounds=1500)
    assert simulated == pytest.approx(counted, abs=0.012)


@pytest.mark.parametrize("images", [60, 75, 360])
def test_the_least_provable_drop_is_the_upper_end_where_nothing_differs(images: int) -> None:
    assert least_provable_drop(images) == pytest.approx(paired_drop(*hits(images))[2])
    assert least_provable_drop(images, 6 / images) == pytest.approx(paired_drop(*hits(images, 3, 3))[2])
    assert least_provable_drop(images, 5 / images) == least_provable_drop(images, 6 / images)  # whole images each way


def test_so_many_images_prove_a_drop_and_one_less_does_not() -> None:
    images = images_to_prove(0.02)
    assert images == 189
    assert least_provable_drop(images) <= 0.02 < least_provable_drop(images - 1)


def test_a_small_part_tells_what_a_larger_one_would_show() -> None:
    assert paired_drop(*hits(100, 2, 1), 400) == pytest.approx(paired_drop(*hits(400, 8, 4)))
