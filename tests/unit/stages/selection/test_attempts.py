import pytest

from bonsai.stages.selection.attempts import rank, tighter, uses_budget
from bonsai.stages.selection.loop import Fit


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        ((True, 0.90), (True, 0.80)),  # what a budget leaves unused is width
        ((True, 0.80), (False, 0.90)),
        ((False, 0.90), (False, 1.02)),
        ((False, 1.02), (False, 1.30)),
    ],
)
def test_the_branch_that_is_kept_meets_the_gates_and_uses_its_budget_but_no_more(kept: tuple[bool, float], other: tuple[bool, float]) -> None:
    assert rank(*kept) < rank(*other)


@pytest.mark.parametrize(("used", "expected"), [(0.97, True), (0.922, True), (0.92, False), (1.0, True), (1.001, False)])
def test_an_engine_over_its_budget_or_far_below_what_it_was_aimed_at_is_chosen_again(used: float, expected: bool) -> None:
    assert uses_budget(used, margin=0.03, tolerance=0) is expected


@pytest.mark.parametrize(("used", "expected"), [(0.8, True), (0.69, True), (0.68, False)])
def test_what_the_loop_was_free_to_leave_unused_is_no_waste(used: float, expected: bool) -> None:
    assert uses_budget(used, margin=0.2, tolerance=0.1) is expected


def test_a_removal_is_repeated_within_a_budget_below_what_came_out() -> None:
    fit = Fit(widths={}, predicted_ms=10, aim_ms=9.7, gap=0)
    assert tighter(10, fit, measured_ms=10.67, predicted_ms=20) == pytest.approx(10 * 9.7 / 10.67 * 0.998)
    assert tighter(10, fit, measured_ms=9.8, predicted_ms=9) == pytest.approx(8.991)
