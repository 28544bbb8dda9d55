"""Widths for the size of the file: chosen again, narrower, before anything is trained."""

from types import SimpleNamespace
from typing import cast

import pytest

from bonsai.pipeline.run.branch import Branch
from bonsai.pipeline.run.other_limits import ROUNDS, fit_within, require_other_limits
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.budget import Budget
from bonsai.profiles.errors import BudgetError
from bonsai.profiles.loader import load_profile
from bonsai.stages.measurement.measurements import Gate
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.selection.loop import Fit


def target_with(size_mb: float | None) -> ReadyTarget:
    """Return a target whose engines have a megabyte for each 10 channels, and 0.1 beside."""
    profile = load_profile("local-cpu").model_copy(update={"budget": Budget(latency_ms=4, size_mb=size_mb)})
    facts = {"profile": profile, "options": {"a": (2, 8, 40)}, "chooser": SimpleNamespace(config=PruneConfig()), "points": ()}
    found = SimpleNamespace(**facts, engine_mb=lambda widths: 0.1 + widths["a"] / 10)
    return cast(ReadyTarget, found)


def fit(limits: list[float]) -> "object":
    """Return what chooses 10 channels for each millisecond, and notes the limits that it is asked for."""

    def choose(limit_ms: float) -> Fit:
        limits.append(limit_ms)
        return Fit(widths={"a": round(10 * limit_ms)}, predicted_ms=limit_ms, aim_ms=limit_ms, gap=0)

    return choose


def chosen(size_mb: float | None) -> tuple[int, list[float]]:
    limits: list[float] = []
    found = fit_within(target_with(size_mb), fit(limits), 4)  # type: ignore[arg-type]
    return found.widths["a"], limits


def test_widths_for_the_latency_stay_where_the_size_is_not_limited_or_met() -> None:
    assert chosen(None) == chosen(5) == (40, [4])


def test_narrower_widths_are_chosen_until_the_file_is_small_enough() -> None:
    width, limits = chosen(2)
    assert 0.1 + width / 10 <= 2
    assert width >= 15, "no narrower than needed by more than a few steps"
    assert limits == sorted(limits, reverse=True)
    assert 2 <= len(limits) <= 1 + ROUNDS


def test_a_size_below_the_narrowest_engine_is_refused_with_the_smallest_that_can_be_met() -> None:
    said = r"profile local-cpu: the size budget cannot be met\n +given: +budget\.size_mb 0\.2\n +allowed: at least 0\.3 MB, the int8 engine"
    with pytest.raises(BudgetError, match=said):
        require_other_limits(target_with(0.2))
    require_other_limits(target_with(0.31))
    require_other_limits(target_with(None))


def gate(name: str, found: float, limit: float) -> Gate:
    return Gate(name=name, limit=limit, found=found, unit="", verdict="met")


def test_a_branch_is_judged_by_the_figure_that_is_largest_over_its_limit() -> None:
    gates = (gate("latency", 0.9, 1), gate("accuracy drop", 9, 1), gate("p99", 3, 2), gate("size", 1, 4))
    branch = Branch(*[cast("object", None)] * 8, measurement=SimpleNamespace(gates=gates), dataset=None, resolutions=())  # type: ignore[arg-type]
    assert (branch.used, branch.strained) == (0.9, 1.5)
