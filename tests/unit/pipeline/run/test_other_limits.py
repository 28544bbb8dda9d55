"""Widths for the size of the file, and for the points of a profile: chosen again, narrower, before anything is trained."""

from types import SimpleNamespace
from typing import cast

import pytest

from bonsai.pipeline.run.branch import Branch
from bonsai.pipeline.run.device_timing import Timed
from bonsai.pipeline.run.other_limits import ROUNDS, fit_within, require_other_limits
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.budget import Budget
from bonsai.profiles.errors import BudgetError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
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


class FakeTimer:
    """Times networks at a point of a profile: a millisecond for each image and 20 channels, and 0.2 for each inference; the dense network has 80 channels."""

    def __init__(self, at: HardwareProfile) -> None:
        self.at, self.dense_ms = at, 0.0

    def _ms(self, widths: dict[str, int]) -> float:
        return self.at.target.batch * widths["a"] / 20 + 0.2

    def survey(self, networks: list[dict[str, int]]) -> list[Timed]:
        self.dense_ms = self._ms({"a": 80})
        return [Timed(self._ms(widths), 0.0) for widths in networks]

    def time_at_pace(self, widths: dict[str, int], limit_ms: float) -> list[Timed]:
        return [Timed(self._ms(widths), 0.0)]

    def doubt_of(self, timed: list[Timed]) -> float:
        return 1.02


def target_at(*points: dict[str, object], size_mb: float | None = None) -> ReadyTarget:
    """Return a target whose narrowest network was timed at every point."""
    found = target_with(size_mb)
    at = load_profile("local-cpu", {"points": list(points)}).at_points().values()
    timers = tuple(FakeTimer(point) for point in at)
    ready = cast(ReadyTarget, SimpleNamespace(**{**vars(found), "points": timers}))
    require_other_limits(ready)
    return ready


LOOSE, TIGHT = {"batch": 2, "budget": {"latency": 0.9}}, {"batch": 8, "budget": {"latency": 0.25}}


def chosen_at(*points: dict[str, object], size_mb: float | None = None) -> tuple[int, int]:
    """Return the width that is chosen, and how often widths were chosen."""
    limits: list[float] = []
    found = fit_within(target_at(*points, size_mb=size_mb), fit(limits), 4)  # type: ignore[arg-type]
    return found.widths["a"], len(limits)


def test_widths_stay_where_every_point_is_met() -> None:
    assert chosen_at(LOOSE) == (40, 1)


def test_the_point_that_is_furthest_over_its_limit_decides() -> None:
    width, tries = chosen_at(TIGHT)
    allowed = 0.25 * 32.2 * 0.99  # the dense network's milliseconds at batch 8, and the margin
    assert (8 * width / 20 + 0.2) * 1.02 <= allowed
    assert width >= 17, "no narrower than needed by more than a few steps"
    assert 2 <= tries <= 1 + ROUNDS
    assert chosen_at(LOOSE, TIGHT) == chosen_at(TIGHT, LOOSE) == (width, tries)
    assert chosen_at(TIGHT, size_mb=1)[0] < width


def test_a_point_that_stays_out_of_reach_is_told(caplog: pytest.LogCaptureFixture) -> None:
    target = target_at(TIGHT)
    fixed = Fit(widths={"a": 40}, predicted_ms=1, aim_ms=1, gap=0)
    assert fit_within(target, lambda limit_ms: fixed, 4) is fixed
    said = caplog.text
    assert said.count("narrower ones are chosen") == ROUNDS
    assert f"warning: local-cpu at batch 8: an untrained engine of these widths needs 16.691 ms, the point's budget 8.05 ms; after {ROUNDS} further" in said


def test_a_point_below_the_narrowest_engine_is_refused_with_the_least_that_can_be_met() -> None:
    told = (
        r"profile local-cpu at batch 8: the latency budget cannot be met\n +given: +p50 <= 0\.02 of the dense network; its latency is 0\.644 ms\n"
        r" +allowed: at least 1\.03 ms, the int8 engine with every group at its narrowest width"
    )
    with pytest.raises(BudgetError, match=told):
        target_at({"batch": 8, "budget": {"latency": 0.02}})


def gate(name: str, found: float, limit: float) -> Gate:
    return Gate(name=name, limit=limit, found=found, unit="", verdict="met")


def test_a_branch_is_judged_by_the_figure_that_is_largest_over_its_limit() -> None:
    gates = (gate("latency", 0.9, 1), gate("accuracy drop", 9, 1), gate("p99", 3, 2), gate("size", 1, 4))
    at_points = (gate("latency at batch 8", 0.8, 1), gate("p99 at 2 threads", 9, 5))
    branch = Branch(*[cast("object", None)] * 8, measurement=SimpleNamespace(gates=gates), dataset=None, resolutions=())  # type: ignore[arg-type]
    assert (branch.used, branch.strained) == (0.9, 1.5)
    other = Branch(*[cast("object", None)] * 8, measurement=SimpleNamespace(gates=(*gates, *at_points)), dataset=None, resolutions=())  # type: ignore[arg-type]
    assert (other.used, other.strained) == (0.9, 1.8)
