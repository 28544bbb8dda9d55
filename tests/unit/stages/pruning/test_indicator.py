import pytest

from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.pruning.groups import Kept
from bonsai.stages.pruning.indicator import Indicator
from bonsai.stages.pruning.policy import PolicyConfig, check_steps

EPI = EpiConfig(window=1, monotone=1)
WIDE: Kept = {"a": (0, 1, 2, 3), "b": (0, 1)}
NARROW: Kept = {"a": (0, 1), "b": (0, 1)}


def indicator(*seen: Kept, policy: PolicyConfig | None = None) -> Indicator:
    found = Indicator(policy or PolicyConfig(), EPI, "magnitude_l2")
    for check, kept in enumerate(seen, start=1):
        found = found.after(kept, check / 2)
    return found


def test_a_check_leaves_the_indicator_before_it_as_it_was() -> None:
    first = indicator(WIDE)
    second = first.after(NARROW, 1.0)
    assert (first.curve, first.epochs) == ((None,), (0.5,))
    assert second.curve == (None, pytest.approx(1 - (2 / 6 + 0) / 2))
    assert first.sentence == "check 1  EPI needs 1 more checks to have a value"
    assert second.sentence == "check 2  EPI 0.833 (fires at 0.983)"


def test_it_is_time_once_the_widths_have_settled() -> None:
    assert indicator(WIDE, WIDE).trigger(latest=False) is None  # one value of its own is too few
    trigger = indicator(WIDE, WIDE, WIDE).trigger(latest=False)
    assert trigger is not None
    assert (trigger.check, trigger.epoch, trigger.stable, trigger.curve) == (3, 1.5, True, (None, 1.0, 1.0))
    assert trigger.overlap == (None, 1.0, 1.0)


def test_at_the_latest_check_it_is_time_whether_settled_or_not() -> None:
    unsettled = indicator(WIDE, NARROW, WIDE)
    assert unsettled.trigger(latest=False) is None
    trigger = unsettled.trigger(latest=True)
    assert trigger is not None
    assert not trigger.stable


def test_other_policies_do_not_wait_for_epi() -> None:
    policy = PolicyConfig(name="epoch", epoch=1.0)
    assert indicator(WIDE, policy=policy).trigger(latest=True) is None
    assert indicator(WIDE, NARROW, policy=policy).trigger(latest=False) is not None


def test_checks_are_spread_over_the_training_and_none_stands_before_its_first_step() -> None:
    assert check_steps(PolicyConfig(), EpiConfig(every=0.1, latest=0.5), total=20, per_epoch=5) == [2, 4, 6, 8, 10]
    assert check_steps(PolicyConfig(name="initialisation"), EpiConfig(every=0.1, latest=0.4, window=1), total=3, per_epoch=1) == [1]
