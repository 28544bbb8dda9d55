"""How long a recovery of a length of its own is, and what is told of it; `stages/training/rounds.py` decides whether it goes on."""

import pytest

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.profiles.errors import ConfigError
from bonsai.stages.pruning.policy import WARMUP, RecoverConfig
from bonsai.stages.pruning.recovery import FINETUNE, Goal, Length, Recovery, length_of
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.metric import Metric

TOP1 = CLASSIFICATION.metric
RMSE = Metric(name="rmse", label="RMSE", unit="mm", direction="lower", best=0.0)
TOLD = Recovery(epochs=25, kept=20, least=20, most=40, cost=8.5, plain_cost=8.3, goal=0.95, reached=0.9375, ended="gain")


@pytest.mark.parametrize("before", [0.0, 0.42, 1.75, 7.0])
@pytest.mark.parametrize("share", [0.2, 0.38, 1.0])
def test_cut_and_recovery_cost_what_train_prune_finetune_would(before: float, share: float) -> None:
    length = length_of(7, before, share, None)
    plain = 7 * (1 + FINETUNE * share)
    assert plain <= length.cost(length.least) < plain + share + 1e-9
    assert length.most == 2 * length.least


def test_a_very_small_network_costs_more_than_its_multiply_accumulates() -> None:
    assert length_of(10, 0, 0.01, None) == length_of(10, 0, 0.2, None)


def test_the_largest_length_limits_the_least() -> None:
    assert length_of(10, 0, 0.5, 12)[:2] == (12, 12)
    assert length_of(10, 0, 0.5, 30)[:2] == (25, 30)
    assert Length(25, 30, 0.5, 0).round == 6


@pytest.mark.parametrize(
    ("goal", "metric", "dense", "expected"),
    [
        (Goal(max_drop=0.02, min_metric=None), TOP1, 0.96, 0.95),
        (Goal(max_drop=0.02, min_metric=0.9), TOP1, 0.96, 0.95),
        (Goal(max_drop=0.02, min_metric=0.955), TOP1, 0.96, 0.955),
        (Goal(max_drop=0.02, min_metric=None), TOP1, None, None),
        (Goal(max_drop=None, min_metric=0.9), TOP1, None, 0.9),
        (Goal(max_drop=None, min_metric=None), TOP1, 0.96, None),
        (Goal(max_drop=0.2, min_metric=None), RMSE, 3.0, 3.1),
    ],
)
def test_the_goal_is_what_both_gates_ask_for(goal: Goal, metric: Metric, dense: float | None, expected: float | None) -> None:
    assert goal.figure(metric, dense) == (pytest.approx(expected) if expected is not None else None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Recovery took 25 epochs after the last cut (at least 20) and ended because the last 5 epochs gained nothing, and were dropped: "),
        ({"ended": "most", "epochs": 40, "kept": 40}, "ended because it had its largest length (40): validation top-1 93.75% of 95.00%. "),
        ({"ended": "goal", "reached": 0.96}, "ended because the validation figure reached what the gates ask for: validation top-1 96.00% of 95.00%. "),
        ({"ended": "goal", "goal": None}, "ended because no gate asks for more: validation top-1 93.75%. "),
        ({}, "The way to the pruned network costs 8.5 dense epochs by multiply-accumulates; training, pruning and half a cycle of fine-tuning would cost 8.3."),
    ],
)
def test_what_it_took_and_why_it_ended_is_told(changes: dict[str, object], told: str) -> None:
    assert told in TOLD.model_copy(update=changes).sentence(TOP1)


def test_a_largest_length_belongs_to_auto_alone() -> None:
    assert load_recipe("resnet-edge", {"prune.recover": "{epochs: auto, most: 90}"}).prune.recover.most == 90
    with pytest.raises(ConfigError, match="`most` belongs to `epochs: auto`: any other length is fixed"):
        load_recipe("resnet-edge", {"prune.recover": "{epochs: 9, most: 90}"})
    with pytest.raises(ConfigError, match=r"with the policy `trained` it is `policy\.finetune\.epochs`"):
        load_recipe("resnet-edge", {"prune.policy": {"name": "trained", "finetune": {}}, "prune.recover.epochs": "auto"})


def test_lengths_of_earlier_versions_keep_their_identity() -> None:
    assert RecoverConfig(epochs=10).identity() == RecoverConfig(epochs=10, warmup=0).identity() == '{"epochs":10}'
    assert RecoverConfig(epochs="auto", most=9, warmup=0).identity() == '{"epochs":"auto","most":9}'


def test_a_warm_up_changes_the_identity() -> None:
    assert RecoverConfig(epochs="auto").identity() == RecoverConfig(epochs="auto", warmup=WARMUP).identity() == '{"epochs":"auto","warmup":0.1}'
    assert RecoverConfig(epochs=10, warmup=0.2).identity() == '{"epochs":10,"warmup":0.2}'
