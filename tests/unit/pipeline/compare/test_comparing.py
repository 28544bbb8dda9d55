"""How a comparison goes about profiles that fail; `tests/integration/test_compare.py` runs one."""

import logging

import pytest

from bonsai.pipeline.compare.comparing import KeepGoing, ProfilesFailed, require_all
from bonsai.pipeline.compare.comparison import Comparison, Cost, Outcome
from bonsai.pipeline.run.conduct import require_gates
from bonsai.profiles.errors import BudgetError
from bonsai.stages.data.config import DataConfig
from bonsai.stages.errors import GateMissed
from bonsai.stages.measurement.measurements import Gate
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store

COST = Cost(runs=0, together=0, repeated=0, trunk=0)


def fail(error: Exception) -> int:
    raise error


@pytest.fixture
def kept(store: Store) -> KeepGoing:
    return KeepGoing(store.run, lambda branches: {name: grow() for name, grow in branches.items()})


def test_an_error_of_one_profile_is_returned_and_said_at_once(kept: KeepGoing, caplog: pytest.LogCaptureFixture) -> None:
    error = BudgetError("below the floor")
    with caplog.at_level(logging.INFO, logger="bonsai"):
        assert kept.attempt("pi", lambda: fail(error)) is error
    assert caplog.messages == ["pi: FAILED (code 2), the other profiles go on: below the floor"]


def test_a_bug_is_raised(kept: KeepGoing) -> None:
    with pytest.raises(KeyError, match="widths"):
        kept.attempt("pi", lambda: fail(KeyError("widths")))


def test_what_is_shared_counts_for_every_profile_and_what_is_its_own_for_one(kept: KeepGoing) -> None:
    shared = kept.shared_step(prepare, data=DataConfig(name="digits", options={"size": 8}), content="")
    own = kept.step_of("pi")(prepare, data=DataConfig(name="digits", options={"size": 9}), content="")
    assert kept.used_by("pi") == [shared, own]
    assert kept.used_by("t4") == [shared]


def test_errors_come_before_missed_gates_and_none_is_no_error() -> None:
    missed = Gate(name="size", limit=1, found=2, unit="MB", verdict="missed")
    good, bad, failed = Outcome(profile="a", exit_code=0), Outcome(profile="b", exit_code=3, package="r--b", gates=(missed,)), _failed()
    require_all(Comparison(recipe="r", outcomes=(good,), cost=COST))
    with pytest.raises(GateMissed, match=r"r--b: size: 2 MB, limit 1: MISSED"):
        require_all(Comparison(recipe="r", outcomes=(good, bad), cost=COST))
    with pytest.raises(ProfilesFailed, match=r"1 of 2 profiles failed: c \(code 5\)") as caught:
        require_all(Comparison(recipe="r", outcomes=(bad, failed), cost=COST))
    assert caught.value.exit_code == 5


def test_an_undecided_gate_is_an_error_unless_it_is_allowed_and_then_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bonsai")
    unsure = Gate(name="latency", limit=0.5, found=0.495, unit="ms", verdict="undecided", low=0.48, high=0.51)
    found = Comparison(recipe="r", outcomes=(Outcome(profile="b", exit_code=3, package="r--b", gates=(unsure,)),), cost=COST)
    with pytest.raises(GateMissed, match=r"r--b: latency: 0.495 \(0.48 to 0.51\) ms, limit 0.5: UNDECIDED") as caught:
        require_all(found)
    assert caught.value.exit_code == 3
    require_all(found, allow_undecided=True)
    assert "allowed to be undecided: r--b: latency" in caplog.text
    missed = Gate(name="size", limit=1, found=2, unit="MB", verdict="missed")
    with pytest.raises(GateMissed, match="size") as caught:
        require_gates({"r--b": (unsure, missed)}, allow_undecided=True)
    assert "UNDECIDED" not in str(caught.value)


def _failed() -> Outcome:
    return Outcome(profile="c", exit_code=5, error="not here")
