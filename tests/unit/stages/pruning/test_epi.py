from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.located_yaml import LocatedMapping, validate
from bonsai.stages.pruning.epi import EpiConfig, Trigger, jaccard, over_window, settled, similarity, threshold
from bonsai.stages.pruning.groups import Kept

kept_sets = st.dictionaries(st.sampled_from("abcd"), st.sets(st.integers(0, 64)).map(lambda found: tuple(sorted(found))), min_size=4, max_size=4)


def first(**widths: int) -> Kept:
    return {group: tuple(range(width)) for group, width in widths.items()}


@pytest.mark.parametrize("measure", [similarity, jaccard])
@given(one=kept_sets, other=kept_sets)
def test_both_measures_are_symmetric_within_zero_and_one_and_one_for_the_same(measure: Callable[[Kept, Kept], float], one: Kept, other: Kept) -> None:
    assert measure(one, other) == pytest.approx(measure(other, one))
    assert 0 <= measure(one, other) <= 1
    assert measure(one, one) == (1 if measure is similarity else pytest.approx(sum(bool(kept) for kept in one.values()) / 4))


def test_similarity_by_hand_counts_channels_and_not_which() -> None:
    assert similarity(first(a=10, b=30), first(a=30, b=30)) == pytest.approx(1 - 0.5 * (20 / 40))
    assert similarity(first(a=0), first(a=0)) == 1
    assert similarity(first(a=0), first(a=5)) == 0
    assert similarity({"a": (0, 1)}, {"a": (2, 3)}) == 1


def test_jaccard_by_hand_counts_which_channels() -> None:
    assert jaccard({"a": (0, 1), "b": (4,)}, {"a": (1, 2), "b": (4,)}) == pytest.approx((1 / 3 + 1) / 2)


def test_curve_by_hand() -> None:
    networks = [first(a=10), first(a=30), first(a=30)]
    assert over_window(similarity, networks, window=2) == [None, None, pytest.approx((1 + 0.5) / 2)]


@pytest.mark.parametrize(
    ("curve", "fires"),
    [
        ([None, None, 0.9, 0.95, 0.99], True),
        ([None, None, 0.9, 0.95, 0.97], False),
        ([None, None, 0.9, 0.995, 0.99], False),
        ([None, None, None, 0.99, 0.99], False),
        ([0.99, 0.99], False),
        ([1.0, 1.0, 1.0], True),
    ],
)
def test_settled_needs_the_threshold_and_no_higher_value_among_the_last(curve: list[float | None], fires: bool) -> None:
    assert settled(curve, EpiConfig(monotone=2), tau=0.983) is fires


def test_the_first_check_that_can_fire_is_window_plus_monotone_plus_one() -> None:
    config = EpiConfig()
    fired = [settled(over_window(similarity, [first(a=8)] * checks, config.window), config, 0.983) for checks in range(1, 13)]
    assert fired.index(True) + 1 == config.first_check == 5
    assert config.first_check * config.every <= 0.05
    assert config.checks == 25


def test_settings_that_never_let_epi_fire_are_refused() -> None:
    with pytest.raises(ConfigError, match="can fire at check 5 at the earliest; up to `latest` there are 4"):
        validate(EpiConfig, LocatedMapping({"every": 0.05, "latest": 0.2}, {}, "epi"))


@pytest.mark.parametrize(
    ("curve", "why"),
    [
        ((None, 0.9), "EPI had NOT settled: it was 0.900, below the 0.983 at which it fires"),
        ((1.0, 0.99), "EPI had NOT settled: it was 0.990, and was still falling"),
        ((None, None), "the latest check came before EPI had a value"),
    ],
)
def test_a_latest_check_says_why_epi_had_not_fired(curve: tuple[float | None, ...], why: str) -> None:
    trigger = Trigger(policy="epi", check=2, epoch=1.0, stable=False, tau=0.983, epochs=(0.5, 1.0), curve=curve, overlap=curve)
    assert why in trigger.sentence


@pytest.mark.parametrize(("criterion", "tau"), [("magnitude_l2", 0.983), ("random", 0.983), ("bn_gradient", 0.944), ("snip", 0.944)])
def test_each_kind_of_criterion_has_the_threshold_of_the_paper(criterion: str, tau: float) -> None:
    assert threshold(EpiConfig(), criterion) == tau
    assert threshold(EpiConfig(tau=0.5), criterion) == 0.5
