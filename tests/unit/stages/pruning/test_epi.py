import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.pruning.epi import EpiConfig, epi_curve, settled, similarity, threshold

widths = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 64), min_size=4, max_size=4)


@given(widths, widths)
def test_similarity_is_symmetric_and_within_zero_and_one(first: dict[str, int], second: dict[str, int]) -> None:
    assert similarity(first, second) == pytest.approx(similarity(second, first))
    assert 0 <= similarity(first, second) <= 1


@given(widths)
def test_similarity_of_equal_networks_is_one(network: dict[str, int]) -> None:
    assert similarity(network, network) == 1


def test_similarity_by_hand() -> None:
    assert similarity({"a": 10, "b": 30}, {"a": 30, "b": 30}) == pytest.approx(1 - 0.5 * (20 / 40))
    assert similarity({"a": 0}, {"a": 0}) == 1
    assert similarity({"a": 0}, {"a": 5}) == 0


def test_curve_by_hand() -> None:
    networks = [{"a": 10}, {"a": 30}, {"a": 30}]
    assert epi_curve(networks, window=2) == [None, None, pytest.approx((1 + 0.5) / 2)]


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
    fired = [settled(epi_curve([{"a": 8}] * checks, config.window), config, 0.983) for checks in range(1, 13)]
    assert fired.index(True) + 1 == 11


@pytest.mark.parametrize(("criterion", "tau"), [("magnitude_l2", 0.983), ("random", 0.983), ("bn_gradient", 0.944), ("activation", 0.944)])
def test_each_kind_of_criterion_has_the_threshold_of_the_paper(criterion: str, tau: float) -> None:
    assert threshold(EpiConfig(), criterion) == tau
    assert threshold(EpiConfig(tau=0.5), criterion) == 0.5
