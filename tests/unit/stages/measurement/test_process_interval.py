"""The interval over processes, by simulation: how often a verdict is wrong, and how often there is none."""

import math

import numpy as np
import pytest

from bonsai.stages.measurement.budget_gates import verdict_within
from bonsai.stages.measurement.process_interval import LEAST_SPREAD, interval_between, looks_of, movement_of

LOOKS = looks_of(3, 9)
SPREADS = (0.01, 0.02, 0.03)
"""Between processes, as measured on quiet machines; 0.003 within them."""
WITHIN, LIMIT = 0.003, 0.25


def verdicts(ratio: float, spread: float, trials: int = 800) -> dict[str, float]:
    """Return the shares of the verdicts on an engine of a true ratio to its limit, in sequences that stop as soon as they can."""
    rng = np.random.default_rng(7)
    logs = math.log(LIMIT * ratio) + rng.normal(0, math.hypot(spread, WITHIN), (trials, LOOKS[-1]))
    found = [judge(np.exp(row)) for row in logs]
    return {verdict: found.count(verdict) / trials for verdict in ("met", "missed", "undecided")}


def judge(figures: np.ndarray) -> str:
    for look in LOOKS:
        interval = interval_between(figures[:look], [WITHIN] * look, looks=len(LOOKS))
        verdict = verdict_within(interval.low, interval.high, LIMIT)
        if verdict != "undecided":
            return verdict
    return "undecided"


@pytest.mark.parametrize("spread", SPREADS)
def test_an_engine_3_per_cent_on_the_wrong_side_is_hardly_ever_let_through_and_one_on_the_right_side_hardly_ever_refused(spread: float) -> None:
    assert verdicts(1.03, spread)["met"] <= 0.01
    assert verdicts(0.97, spread)["missed"] <= 0.01


@pytest.mark.parametrize("spread", [*SPREADS, 0.15])
def test_an_engine_exactly_at_its_limit_is_called_met_or_missed_in_at_most_2_5_per_cent_each(spread: float) -> None:
    found = verdicts(1.0, spread, trials=2000)
    assert found["met"] <= 0.025 + 2 * math.sqrt(0.025 / 2000)
    assert found["missed"] <= 0.025 + 2 * math.sqrt(0.025 / 2000)


@pytest.mark.parametrize(
    ("ratio", "spread", "most"),
    [(0.98, 0.01, 0.05), (0.97, 0.01, 0.01), (0.97, 0.02, 0.2), (0.95, 0.02, 0.01), (0.97, 0.03, 0.55), (0.95, 0.03, 0.1), (0.92, 0.03, 0.01)],
)
def test_how_often_an_engine_within_its_limit_stays_undecided(ratio: float, spread: float, most: int) -> None:
    found = verdicts(ratio, spread)
    assert found["undecided"] <= most
    assert found["met"] >= 1 - most - 0.01


def test_the_intervals_of_a_whole_sequence_hold_the_truth_together_in_95_per_cent() -> None:
    rng = np.random.default_rng(1)
    missing = 0
    for row in np.exp(rng.normal(0, 0.02, (2000, LOOKS[-1]))):
        found = [interval_between(row[:look], [0.0] * look, looks=len(LOOKS)) for look in LOOKS]
        missing += any(not interval.low <= 1 <= interval.high for interval in found)
    assert missing / 2000 <= 0.05


def test_close_values_of_three_processes_are_not_believed_to_be_that_close() -> None:
    lucky = interval_between([0.25, 0.25, 0.25], [0.0] * 3)
    assert lucky.spread == LEAST_SPREAD
    assert lucky.high / lucky.found - 1 == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=0.02)


def test_the_error_within_processes_widens_the_interval() -> None:
    assert interval_between([1.0, 1.0, 1.0], [0.05] * 3).spread == pytest.approx(math.hypot(0.01, 0.05))


def test_a_dense_engine_that_moved_between_processes_widens_the_interval_of_a_ratio() -> None:
    moved = movement_of([1.0, 1.2, 1.4])
    assert moved == pytest.approx(0.169, abs=1e-3)
    assert interval_between([0.25, 0.25, 0.25], [0.0] * 3, movement=moved).spread == pytest.approx(moved / 2)


def test_the_figure_is_the_geometric_mean_and_does_not_depend_on_the_unit() -> None:
    small, large = interval_between([1.0, 1.1, 1.21], [0.01] * 3), interval_between([1000.0, 1100.0, 1210.0], [0.01] * 3)
    assert small.found == pytest.approx(1.1)
    assert large.low == pytest.approx(1000 * small.low)
    assert small.sentence.endswith("from 3 processes")


@pytest.mark.parametrize(("first", "most", "looks"), [(3, 9, (3, 6, 9)), (3, 3, (3,)), (3, 7, (3, 6, 7)), (5, 20, (5, 10, 15, 20))])
def test_processes_are_added_as_many_as_there_were_first(first: int, most: int, looks: tuple[int, ...]) -> None:
    assert looks_of(first, most) == looks
