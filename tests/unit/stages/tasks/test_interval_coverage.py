"""Intervals of figures that are no shares of hits hold the truth as often as they say: `tests/simulated_results.py` draws results."""

import numpy as np
import pytest
from simulated_results import Scenario, coverage

from bonsai.stages.tasks.intervals import mean_interval, samples_for, unseen_share, wilson_of_share

SIZES = (48, 96, 360)
SCENARIOS = [
    Scenario(task, noise, p)
    for task, steps in {"regression": (0.05, 0.3), "heavy regression": (0.1,), "multi_label": (0.1, 0.5), "segmentation": (0.002, 0.02)}.items()
    for noise, p in ((0.0, 0.0), *((step, 0.0) for step in steps), (0.0, 0.02), (steps[0], 0.1))
]


@pytest.mark.slow
@pytest.mark.parametrize("samples", SIZES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_intervals_hold_the_truth_as_often_as_they_say(scenario: Scenario, samples: int) -> None:
    found = coverage(scenario, samples, rounds=1000)
    assert found.figure >= 0.93
    assert found.drop >= 0.93
    assert found.passed <= 0.04
    assert found.worse <= 0.065  # of 48 errors of which a tenth is of another kind; else at most 0.045
    assert found.width > 0


@pytest.mark.parametrize("scenario", [Scenario("regression", 0.05, 0.02), Scenario("multi_label", 0.1, 0.02), Scenario("segmentation", 0.01, 0.02)], ids=str)
def test_intervals_of_few_samples_hold_the_truth(scenario: Scenario) -> None:
    found = coverage(scenario, 48, rounds=150)
    assert found.figure >= 0.92
    assert found.drop >= 0.92


@pytest.mark.parametrize("samples", [2, 5, 48, 360])
def test_samples_that_are_all_alike_leave_a_width(samples: int) -> None:
    found, low, high = mean_interval(0.5, np.zeros(samples), 1.0)
    assert (found, high - found, found - low) == (0.5, pytest.approx(unseen_share(samples)), pytest.approx(unseen_share(samples)))


def test_the_end_of_hits_is_near_wilsons() -> None:
    hits = np.repeat([1.0, 0.0], [340, 20])
    _, low, _ = mean_interval(hits.mean(), hits - hits.mean(), float(hits.mean()))
    assert low == pytest.approx(wilson_of_share(340 / 360, 360)[0], abs=2e-3)


def test_a_wide_spread_gives_the_width_of_students_interval() -> None:
    values = np.random.default_rng(0).normal(0, 1, 2000)
    _, low, high = mean_interval(0.0, values - values.mean(), 1.0)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(2000), rel=0.1)


def test_a_forecast_for_more_samples_is_narrower() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100)
    widths = [mean_interval(0.0, values - values.mean(), 1.0, samples)[2] for samples in (50, None, 400)]
    assert widths[0] > widths[1] > widths[2]


def test_so_many_samples_prove_a_drop_and_one_less_does_not() -> None:
    samples = samples_for(0.02)
    assert unseen_share(samples) <= 0.02 < unseen_share(samples - 1)
