"""How often a timing that ends early is wrong, and how early it ends, on simulated timings of a shared machine."""

import math

import numpy as np
import pytest

from bonsai.stages.backends.early_end import EarlyEnd
from bonsai.stages.backends.timing import time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.measurement.sequential import ERROR, LOOKS, is_above

LIMIT = 0.25
TURNS, RUNS = LOOKS[-1], 25


def simulated(rng: np.random.Generator, ratio: float, noise: float, dependence: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the turns of a candidate and its reference: a drift that both meet, noise of each that lasts for turns, and noise of each run."""
    drift = np.exp(np.cumsum(rng.normal(0, 0.03, TURNS)))
    lasting = np.zeros((2, TURNS))
    for turn in range(1, TURNS):
        lasting[:, turn] = dependence * lasting[:, turn - 1] + rng.normal(0, noise * math.sqrt(1 - dependence**2), 2)
    times = np.exp(lasting)[:, :, None] * drift[None, :, None] * np.exp(rng.gamma(1, 0.05, (2, TURNS, RUNS)))
    return list(times[0] * ratio), list(times[1])


def ends_at(candidate: list[np.ndarray], reference: list[np.ndarray]) -> int | None:
    return next((look for look in LOOKS if is_above(candidate[:look], reference[:look], LIMIT)), None)


@pytest.mark.parametrize("dependence", [0.0, 0.3])
def test_a_ratio_on_the_limit_is_hardly_ever_called_above(dependence: float) -> None:
    rng = np.random.default_rng(0)
    trials = 1500
    wrong = sum(ends_at(*simulated(rng, LIMIT, 0.03, dependence)) is not None for _ in range(trials))
    assert wrong / trials <= ERROR * (1 if dependence == 0 else 3) + 2 * math.sqrt(ERROR / trials)


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_a_ratio_ten_per_cent_above_is_told_by_the_second_look(noise: float) -> None:
    rng = np.random.default_rng(1)
    ends = [ends_at(*simulated(rng, LIMIT * 1.1, noise, 0.3)) or 10_000 for _ in range(300)]
    assert np.median(ends) == LOOKS[0]
    assert np.percentile(ends, 95) <= LOOKS[1]


def test_a_timing_ends_where_it_is_certain_and_tells_after_how_many_turns() -> None:
    made = {"0": 0, "reference": 0}

    def engine(name: str, sums: int):
        def run(images: np.ndarray) -> np.ndarray:
            made[name] += 1
            for _ in range(sums):
                np.sort(images)
            return images

        return run

    config = TimingConfig(runs=2500, block=25, warmup_runs=1, warmup_seconds=0)
    end = EarlyEnd(1.1, "thread_cpu", candidate="0", reference="reference")
    engines = {"0": engine("0", 3), "reference": engine("reference", 1)}
    samples = time_interleaved(engines, dict.fromkeys(engines, np.random.default_rng(0).random(2000)), config, end)
    assert end.turns in LOOKS
    assert {name: values.shape[1] for name, values in samples.items()} == {"0": 25 * end.turns, "reference": 25 * end.turns}
    assert made["0"] < 1500
