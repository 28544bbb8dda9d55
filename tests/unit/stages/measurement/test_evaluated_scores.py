"""Scores that a caller's function returns, and their gates."""

from collections.abc import Callable

import numpy as np
import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.stages.measurement.scores import NO_INTERVAL, Scores, drop_gate, drop_of, require_alike, score_gate
from bonsai.stages.tasks.intervals import tango, wilson_of_share

Pair = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, int, float], Pair]


def ratios(rng: np.random.Generator, n: int, lost: float) -> Pair:
    """Return values such as an IoU for each sample: a little worse afterwards, and some lost entirely."""
    before = rng.beta(8, 2, n)
    after = np.clip(before - 0.01 * rng.exponential(1, n), 0, 1)
    return before, np.where(rng.random(n) < lost, 0.0, after)


def errors(rng: np.random.Generator, n: int, lost: float) -> Pair:
    """Return absolute errors, of which some grow."""
    before = np.abs(rng.normal(0, 3, n))
    return before, np.where(rng.random(n) < lost, before + np.abs(rng.normal(0, 4, n)), before)


def covered(draw: Draw, samples: int, lost: float, rounds: int, *, higher: bool) -> tuple[float, float]:
    """Return how often the interval of the drop holds the true one, and how often it lies below it, which passes a gate of that size."""
    truth, _ = drop_of(*map(Scores.of, draw(np.random.default_rng(10**6), 400_000, lost)), higher_is_better=higher)
    found = []
    for seed in range(rounds):
        _, interval = drop_of(*map(Scores.of, draw(np.random.default_rng(seed), samples, lost)), higher_is_better=higher)
        assert interval is not None
        found.append((interval.low <= truth <= interval.high, interval.high < truth))
    held, passed = np.mean(found, axis=0)
    return float(held), float(passed)


@pytest.mark.parametrize("samples", [48, 200])
@pytest.mark.parametrize("lost", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("draw", "higher"), [(ratios, True), (errors, False)], ids=["ratios", "errors"])
def test_intervals_of_the_drop_hold_the_truth(draw: Draw, higher: bool, samples: int, lost: float) -> None:
    held, passed = covered(draw, samples, lost, 400, higher=higher)
    assert held >= 0.93
    assert passed <= 0.05


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0, 12.0])
def test_values_that_do_not_change_leave_a_width(value: float) -> None:
    same = Scores.of(np.full(100, value))
    drop, interval = drop_of(same, same, higher_is_better=True)
    assert interval is not None
    assert drop == 0
    assert interval.high > 0.01


def test_hits_have_the_intervals_of_a_classification() -> None:
    before, after = np.ones(200), np.ones(200)
    after[:3] = 0
    _, interval = drop_of(Scores.of(before), Scores.of(after), higher_is_better=True)
    assert interval is not None
    assert interval[1:] == pytest.approx([float(end) for end in tango(3, 0, 200)])
    assert Scores.of(after).interval() == (after.mean(), *wilson_of_share(float(after.mean()), 200))


def test_misses_are_worse_where_lower_is_better() -> None:
    before, after = np.zeros(200), np.zeros(200)
    after[:3] = 1
    drop, interval = drop_of(Scores.of(before), Scores.of(after), higher_is_better=False)
    assert interval is not None
    assert (drop, interval.found) == (pytest.approx(0.015), pytest.approx(0.015))


@pytest.mark.parametrize(("lost", "verdict"), [(0, "met"), (8, "undecided"), (80, "missed")])
def test_the_gate_on_the_drop_is_decided_by_its_interval(lost: int, verdict: str) -> None:
    after = np.ones(400)
    after[:lost] = 0
    gate = drop_gate(Scores.of(np.ones(400)), Scores.of(after), limit=0.02, higher_is_better=True, label="accuracy")
    assert (gate.verdict, gate.found) == (verdict, pytest.approx(lost / 400))
    assert gate.low is not None and gate.high is not None and gate.low <= gate.found <= gate.high
    assert "paired 95 % interval; 400 samples" in gate.sentence


def test_the_gate_of_one_number_says_that_it_has_no_interval() -> None:
    gate = drop_gate(Scores.of(0.9), Scores.of(np.float32(0.895)), limit=0.01, higher_is_better=True, label="mAP")
    assert (gate.verdict, gate.low, gate.note) == ("met", None, NO_INTERVAL)
    assert "no interval" in gate.sentence
    assert drop_gate(Scores.of(3.0), Scores.of(3.2), limit=0.1, higher_is_better=False, label="error").verdict == "missed"


@pytest.mark.parametrize(("limit", "higher", "verdict"), [(0.8, True, "met"), (0.9, True, "undecided"), (0.99, True, "missed"), (0.8, False, "missed")])
def test_the_gate_on_the_score_takes_the_worse_end(limit: float, higher: bool, verdict: str) -> None:
    values = np.repeat([1.0, 0.0], [180, 20])
    assert score_gate(Scores.of(values), limit=limit, higher_is_better=higher, label="x").verdict == verdict


@pytest.mark.parametrize("found", [None, "0.9", [1.0], np.ones((3, 2)), np.array([1.0, np.nan]), float("inf"), {"a": 1}, [[1.0], [2.0, 3.0]]])
def test_what_is_no_score_is_refused(found: object) -> None:
    with pytest.raises(ConfigError, match=r"evaluate returned no score"):
        Scores.of(found)


@pytest.mark.parametrize(("later", "said"), [(0.5, "3 values and then one number"), (np.ones(4), "3 values and then 4 values")])
def test_scores_of_two_kinds_are_refused(later: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_alike(Scores.of(np.ones(3)), Scores.of(later))
