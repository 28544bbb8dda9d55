"""A timing arrives as it was, with every field that it has."""

import json

import numpy as np

from bonsai.stages.backends.device import Timing
from bonsai.stages.backends.remote.timings import read, written


def test_a_timing_arrives_with_all_that_it_tells() -> None:
    timing = Timing({"dense": np.arange(6).reshape(2, 3), "pruned": np.ones((2, 4), np.int64)}, turns=7)
    value, body = written(timing)
    assert set(value["facts"]) == set(Timing._fields) - {"samples"}
    found = read(json.loads(json.dumps(value)), body)
    assert list(found.samples) == ["dense", "pruned"]
    assert all(np.array_equal(found.samples[name], timing.samples[name]) for name in timing.samples)
    assert found._replace(samples={}) == timing._replace(samples={})
