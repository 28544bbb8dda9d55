"""Draws results of pairs of networks whose true figures are known: for tests of how often an interval holds the truth.

`p` is the share of samples that the second network loses entirely, `noise` is how much every result moves.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bonsai.stages.tasks.multi_label.judging import LABELLED, MULTI_LABEL, SCORE
from bonsai.stages.tasks.regression.judging import ANSWER, REGRESSION, TARGET
from bonsai.stages.tasks.segmentation.judging import INTERSECTION, SEGMENTATION, UNION
from bonsai.stages.tasks.task import Statistics, Task

Pair = tuple[Statistics, Statistics]
PREVALENCE = np.array([0.5, 0.3, 0.2, 0.15])
SHARES = np.array([4.0, 2.0, 1.0])
"""How the pixels of an image are spread over the classes, on average."""
PIXELS = 256
POPULATION = 200_000


class Scenario(NamedTuple):
    """A task, and how the second network differs from the first."""

    task: str
    noise: float
    p: float

    def draw(self, seed: int, samples: int) -> Pair:
        return DRAWS[self.task](np.random.default_rng(seed), samples, self.noise, self.p)

    @property
    def judge(self) -> Task:
        return JUDGES[self.task]


def regression(rng: np.random.Generator, n: int, noise: float, p: float) -> Pair:
    """Return figures with errors of standard deviation 1, to which the second network adds noise, and lost ones of 2.5."""
    target = rng.normal(0, 3, (n, 1))
    return _regressed(rng, target, rng.normal(0, 1, (n, 1)), noise, p)


def heavy_regression(rng: np.random.Generator, n: int, noise: float, p: float) -> Pair:
    """Return the same with errors of a double exponential distribution."""
    target = rng.normal(0, 3, (n, 1))
    return _regressed(rng, target, rng.laplace(0, 0.7, (n, 1)), noise, p)


def _regressed(rng: np.random.Generator, target: np.ndarray, errors: np.ndarray, noise: float, p: float) -> Pair:
    before = target + errors
    after = before + rng.normal(0, noise, target.shape)
    after = np.where(rng.random(target.shape) < p, target + rng.normal(0, 2.5, target.shape), after)
    return tuple({TARGET: target.astype(np.float32), ANSWER: found.astype(np.float32)} for found in (before, after))  # type: ignore[return-value]


def multi_label(rng: np.random.Generator, n: int, noise: float, p: float) -> Pair:
    """Return labels and scores that lie 2 standard deviations higher where a label is there; those of lost samples say nothing."""
    labelled = (rng.random((n, len(PREVALENCE))) < PREVALENCE).astype(np.uint8)
    before = 2 * labelled + rng.normal(0, 1, labelled.shape)
    after = before + rng.normal(0, noise, labelled.shape)
    after = np.where(rng.random((n, 1)) < p, rng.normal(1, 1.5, labelled.shape), after)
    return tuple({SCORE: scores.astype(np.float32), LABELLED: labelled} for scores in (before, after))  # type: ignore[return-value]


def segmentation(rng: np.random.Generator, n: int, noise: float, p: float) -> Pair:
    """Return masks of which about a tenth of the pixels is wrong, and `noise` more for the second network; lost images are named at random."""
    wanted = rng.multinomial(PIXELS, rng.dirichlet(SHARES, n))
    wrong = rng.beta(2, 18, (n, 1))
    before = _confusions(rng, wanted, wrong)
    more = np.clip(wrong + noise * rng.exponential(1, (n, 1)), 0, 1)
    share = (more - wrong) / np.maximum(1 - wrong, 1e-9)
    moved = rng.binomial(before[:, range(3), range(3)], share)
    after = before.copy()
    for place in range(3):
        for other in range(3):
            if other != place:
                part = moved[:, place] // 2 + (moved[:, place] % 2) * (other == (place + 1) % 3)
                after[:, place, other] += part
                after[:, place, place] -= part
    lost = rng.random(n) < p
    after[lost] = _confusions(rng, wanted, np.full((n, 1), 2 / 3))[lost]
    return _statistics(before), _statistics(after)


def _confusions(rng: np.random.Generator, wanted: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return pixels by class and named class, (n, 3, 3)."""
    missed = rng.binomial(wanted, wrong)
    first = rng.binomial(missed, 0.5)
    found = np.zeros((*wanted.shape, 3), np.int64)
    for place in range(3):
        found[:, place, place] = wanted[:, place] - missed[:, place]
        found[:, place, (place + 1) % 3] = first[:, place]
        found[:, place, (place + 2) % 3] = missed[:, place] - first[:, place]
    return found


def _statistics(confusions: np.ndarray) -> Statistics:
    both = confusions[:, range(3), range(3)]
    return {INTERSECTION: both, UNION: confusions.sum(2) + confusions.sum(1) - both}


JUDGES: dict[str, Task] = {"regression": REGRESSION, "heavy regression": REGRESSION, "multi_label": MULTI_LABEL, "segmentation": SEGMENTATION}
DRAWS: dict[str, Callable[[np.random.Generator, int, float, float], Pair]] = {
    "regression": regression,
    "heavy regression": heavy_regression,
    "multi_label": multi_label,
    "segmentation": segmentation,
}


class Coverage(NamedTuple):
    """How often intervals of a figure and of its drop err.

    Attributes:
        figure: Share of the intervals of the second network's figure that hold the truth.
        drop: The same of the drop.
        passed: Share of the intervals of the drop that lie below the truth, so that a gate of its size is passed.
        worse: Share of the intervals of the figure that say it is better than it is.
        width: Mean distance of the upper end from the drop.
    """

    figure: float
    drop: float
    passed: float
    worse: float
    width: float


def coverage(scenario: Scenario, samples: int, rounds: int) -> Coverage:
    """Return how often the intervals of so many drawn results err; the truth is that of a large population."""
    judge = scenario.judge
    earlier, later = (judge.reduce(statistics) for statistics in scenario.draw(10**6, POPULATION))
    truth = judge.metric.drop(earlier, later)
    found = []
    for seed in range(rounds):
        before, after = scenario.draw(seed, samples)
        drop, own = judge.interval(before, after), judge.bounds(after)
        best = own.high if judge.metric.direction == "lower" else own.low
        too_good = judge.metric.merit(best) > judge.metric.merit(later)
        found.append((own.low <= later <= own.high, drop.low <= truth <= drop.high, drop.high < truth, too_good, drop.high - drop.found))
    return Coverage(*(float(share) for share in np.mean(found, axis=0)))
