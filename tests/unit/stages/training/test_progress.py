"""What a record of the log tells those who show more than lines."""

import logging

import pytest

from bonsai.stages.training.progress import Progress, report


def test_a_line_carries_its_progress(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bonsai"):
        report("branch", done=30, total=50, first=10, unit="step", loss=0.12345)
    (record,) = caplog.records
    assert record.getMessage() == "branch  step 30/50  loss 0.1235"
    progress = record.progress  # type: ignore[attr-defined]
    assert progress == Progress("branch", 10, 30, 50, "step", {"loss": 0.12345})
    assert progress.fraction == 0.5


def test_the_parts_of_one_long_step_are_of_one_kind() -> None:
    assert Progress("sensitivity of conv1", 0, 1, 9, "layer", {}).kind == "sensitivity"


def test_a_step_without_length_is_not_a_division_by_zero() -> None:
    assert Progress("branch", 5, 5, 5, "step", {}).fraction == 0
