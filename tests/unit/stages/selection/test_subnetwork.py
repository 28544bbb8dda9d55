"""The sub-network that EPI compares: single channels by score per price, within an interpolated budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bonsai.stages.pruning.epi import jaccard, over_window, similarity
from bonsai.stages.selection.subnetwork import Ranking
from bonsai.stages.selection.terms import Options, SumTerm, Terms

OPTIONS: Options = {"a": (16, 32, 48, 64), "b": (16, 32, 48, 64)}
FLOORS = {"a": 16, "b": 16}


class Products:
    """A hand-written latency of two groups: what they cost alone, and together."""

    def __init__(self, a: float = 1.0, b: float = 1.0, both: float = 0.0) -> None:
        self.a, self.b, self.both = a, b, both

    def __call__(self, widths: dict[str, int]) -> float:
        return self.a * widths["a"] + self.b * widths["b"] + self.both * widths["a"] * widths["b"]

    def terms(self, options: Options) -> Terms:
        a, b = (np.array(options[group], dtype=float) for group in "ab")
        return Terms(options, unary={"a": self.a * a, "b": self.b * b}, pairs={("a", "b"): self.both * np.outer(a, b)})


def scores(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {group: torch.rand(64, generator=generator) for group in "ab"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.1), st.floats(0.3, 0.95))
def test_the_kept_channels_cost_no_more_than_the_budget_and_one_more_would(seed: int, both: float, share: float) -> None:
    latency = Products(both=both)
    limit = share * latency({"a": 64, "b": 64})
    kept = Ranking(latency, OPTIONS, limit, FLOORS).keep(scores(seed))
    found = latency({group: len(channels) for group, channels in kept.items()})
    assert found <= limit * (1 + 1e-9) or all(len(channels) == 16 for channels in kept.values())
    assert found + max(latency.a, latency.b) + 64 * both + 1e-9 > limit


def test_widths_are_not_rounded_to_the_step() -> None:
    kept = Ranking(Products(), OPTIONS, 77, FLOORS).keep(scores(0))
    assert sum(map(len, kept.values())) == 77
    assert any(len(channels) % 16 for channels in kept.values())


def test_a_floor_below_the_step_lets_fewer_channels_stay() -> None:
    dear = {"a": torch.linspace(1, 2, 64), "b": torch.linspace(100, 200, 64)}
    kept = Ranking(Products(), OPTIONS, 60, {"a": 4, "b": 4}).keep(dear)
    assert (len(kept["a"]), len(kept["b"])) == (4, 56)


def test_each_group_keeps_its_best_channels() -> None:
    given_scores = scores(3)
    kept = Ranking(Products(), OPTIONS, 90, FLOORS).keep(given_scores)
    for group, channels in kept.items():
        left_out = sorted(set(range(64)) - set(channels))
        assert given_scores[group][list(channels)].min() >= given_scores[group][left_out].max()


def test_a_dear_group_keeps_fewer_channels_of_the_same_scores() -> None:
    same = {"a": torch.linspace(1, 2, 64), "b": torch.linspace(1, 2, 64)}
    kept = Ranking(Products(a=4.0, b=1.0), OPTIONS, 150, FLOORS).keep(same)
    assert (len(kept["a"]), len(kept["b"])) == (21, 64)


def test_a_group_with_one_option_keeps_it() -> None:
    kept = Ranking(Products(), {"a": (48,), "b": (16, 32, 64)}, 80, FLOORS).keep(scores(1))
    assert len(kept["a"]) == 48
    assert len(kept["b"]) == 32


def test_equal_scores_keep_the_first_channels() -> None:
    kept = Ranking(Products(), OPTIONS, 40, FLOORS).keep({"a": torch.ones(64), "b": torch.ones(64)})
    assert kept == {"a": tuple(range(24)), "b": tuple(range(16))}


def test_a_small_change_of_one_score_changes_the_sub_network_by_one_channel_at_most() -> None:
    before, ranking = scores(5), Ranking(Products(), OPTIONS, 90, FLOORS)
    after = {group: vector.clone() for group, vector in before.items()}
    after["a"][int(after["a"].argmin())] += 0.8
    first, second = ranking.keep(before), ranking.keep(after)
    assert 0 < sum(len(set(first[group]) ^ set(second[group])) for group in "ab") <= 2


def test_shuffled_scores_lower_epi_and_the_overlap() -> None:
    ranking = Ranking(Products(), OPTIONS, 80, FLOORS)
    steady = [{group: vector * (1 + 0.01 * check) for group, vector in scores(7).items()} for check in range(6)]
    shuffled = [{"a": step["a"], "b": step["b"] * (1 + check % 2)} for check, step in enumerate(steady)]
    calm, wild = ([ranking.keep(step) for step in steps] for steps in (steady, shuffled))
    assert over_window(similarity, calm, 3)[-1] == 1
    assert over_window(similarity, wild, 3)[-1] < 0.95
    assert over_window(jaccard, wild, 3)[-1] < over_window(jaccard, calm, 3)[-1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from((16, 32, 48, 64)), min_size=3, max_size=3))
def test_at_an_option_the_interpolated_latency_is_the_latency(widths: list[int]) -> None:
    rng = np.random.default_rng(0)
    options = {"a": (16, 32, 48, 64), "b": (16, 32, 48, 64), "c": (16, 32, 48, 64)}
    joined = SumTerm({0: np.array([1, 2, 3, 4]), 1: np.array([1, 2, 3, 4])}, {2: np.arange(4)}, np.sort(rng.random((9, 4)), axis=0))
    terms = Terms(options, constant=0.5, unary={"a": rng.random(4)}, pairs={("b", "c"): rng.random((4, 4))}, sums=[joined])
    choice = terms.choice(dict(zip("abc", widths, strict=True)))
    assert terms.between(np.array([widths], dtype=float))[0] == pytest.approx(terms.total(choice))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1, 64), min_size=2, max_size=2))
def test_of_a_bilinear_latency_every_width_is_found_exactly_below_the_options_too(widths: list[float]) -> None:
    latency = Products(a=1.5, b=0.5, both=0.1)
    found = latency.terms(OPTIONS).between(np.array([widths]))[0]
    assert found == pytest.approx(latency({"a": widths[0], "b": widths[1]}))  # type: ignore[dict-item]
