import pytest

from bonsai.pipeline.run.branch import rank


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
