"""Engines judged by made-up outputs and times."""

import numpy as np

from bonsai.stages.backends.device import Timing
from bonsai.stages.measurement.judging import judge
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

TARGETS = np.array([0, 1, 2, 1])
RIGHT = np.eye(3, dtype=np.float32)[TARGETS][:, None]
"""Outputs of four images, one after another."""
TURNS, RUNS = 20, 500


def times(*, busy: slice) -> Timing:
    """Return times of a dense engine of 1 ms and a pruned one of 0.25 ms; in the busy runs both take twice as long."""
    pace = np.ones(RUNS)
    pace[busy] = 2
    return Timing({name: np.stack([ms * 1e6 * pace] * 2).astype(np.int64) for name, ms in (("dense", 1.0), ("pruned", 0.25))}, TURNS)


def test_each_engine_has_the_statistics_of_its_outputs_and_the_latency_of_its_times() -> None:
    outputs = {"dense": RIGHT, "pruned": np.roll(RIGHT, 1, axis=0)}
    found = judge(CLASSIFICATION, TARGETS, outputs, times(busy=slice(0, 0)), clock="wall", reference="dense")
    assert {name: CLASSIFICATION.reduce(one) for name, one in found.statistics.items()} == {"dense": 1.0, "pruned": 0.0}
    assert {name: latency.p50 for name, latency in found.latencies.items()} == {"dense": 1.0, "pruned": 0.25}


def test_the_median_is_of_calm_turns_and_the_tail_of_all_runs() -> None:
    latency = judge(CLASSIFICATION, TARGETS, {"pruned": RIGHT}, times(busy=slice(0, 300)), clock="wall", reference="dense").latencies["pruned"]
    assert (latency.p50, latency.p90, latency.n) == (0.25, 0.5, RUNS)


def test_engines_that_were_not_timed_have_no_latency() -> None:
    found = judge(CLASSIFICATION, TARGETS, {"pruned": iter(RIGHT)}, None, clock="wall", reference="dense")
    assert found.latencies == {}
    assert CLASSIFICATION.reduce(found.statistics["pruned"]) == 1


def test_an_untrained_dense_engine_is_timed_and_has_no_statistics() -> None:
    found = judge(CLASSIFICATION, TARGETS, {"pruned": RIGHT}, times(busy=slice(0, 0)), clock="wall", reference="dense")
    assert (set(found.statistics), set(found.latencies)) == ({"pruned"}, {"dense", "pruned"})
