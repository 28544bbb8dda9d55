"""Calm turns, told by the dense engine, on made-up machines."""

import numpy as np
import pytest

from bonsai.stages.measurement.calm import calm_part, calm_turns, pace_of, turns_of

TURNS = 20


def process(slow: slice, *, ratio_when_slow: float = 0.4, ratio: float = 0.3) -> dict[str, np.ndarray]:
    """Samples of 20 turns of 25 runs; in the slow ones the dense engine takes half as long again, and the small engine more than that."""
    rng = np.random.default_rng(3)
    dense = np.full(TURNS, 1e6)
    dense[slow] = 1.5e6
    engine = dense * np.where(dense > 1e6, ratio_when_slow, ratio)
    return {
        name: np.stack([np.repeat(each, 25) * rng.normal(1, 0.005, TURNS * 25)] * 2).astype(np.int64)
        for name, each in (("engine", engine), ("reference", dense))
    }


def test_a_run_belongs_to_the_turn_that_it_was_made_in() -> None:
    samples = {"engine": np.arange(120).reshape(2, 60), "reference": np.arange(80).reshape(2, 40)}
    turns = turns_of(samples, "wall", 20)
    assert [turn.tolist() for turn in turns["engine"]][:2] == [[60, 61, 62], [63, 64, 65]]
    assert [turn.tolist() for turn in turns["reference"]][-1] == [78, 79]
    assert sum(map(len, turns["engine"])) == 60


def test_an_engine_that_was_run_less_often_than_there_were_turns_has_fewer() -> None:
    turns = turns_of({"engine": np.ones((2, 60)), "reference": np.ones((2, 600))}, "wall", 200)
    assert {name: len(found) for name, found in turns.items()} == {"engine": 60, "reference": 60}


def test_all_turns_of_a_quiet_machine_are_calm() -> None:
    turns = turns_of(process(slice(0, 0)), "wall", TURNS)["reference"]
    assert calm_turns(turns, pace_of([turns])) == list(range(TURNS))


def test_turns_in_which_a_neighbour_slowed_the_dense_engine_down_are_left_out() -> None:
    samples = process(slice(3, 12))
    turns = turns_of(samples, "wall", TURNS)
    calm = calm_turns(turns["reference"], pace_of([turns["reference"]]))
    assert calm == [0, 1, 2, *range(12, TURNS)]
    ratio = np.median([np.median(turns["engine"][turn]) / np.median(turns["reference"][turn]) for turn in calm])
    assert ratio == pytest.approx(0.3, rel=0.01)


def test_a_process_without_calm_turns_is_told_by_the_pace_of_the_others() -> None:
    calm, restless = (turns_of(process(slow), "wall", TURNS)["reference"] for slow in (slice(0, 0), slice(0, TURNS)))
    pace = pace_of([calm, restless, calm])
    assert calm_turns(restless, pace) == []
    assert calm_turns(restless, pace_of([restless])) == list(range(TURNS))


def test_a_median_over_the_calm_turns_is_that_of_the_quiet_machine() -> None:
    samples = process(slice(0, 12))
    calm = calm_part(samples, "wall", TURNS, "reference")
    assert calm["engine"].shape == (2, 8 * 25)
    assert np.median(calm["engine"][1]) / np.median(calm["reference"][1]) == pytest.approx(0.3, rel=0.01)
    assert np.median(samples["engine"][1]) / np.median(samples["reference"][1]) == pytest.approx(0.4, rel=0.01)


def test_a_handful_of_calm_turns_tells_nothing() -> None:
    mostly_slow = turns_of(process(slice(4, TURNS)), "wall", TURNS)["reference"]
    assert calm_turns(mostly_slow, 1e6) == []
