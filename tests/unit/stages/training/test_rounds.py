"""Whether a recovery goes on, and with which weights it ends."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.networks.checkpoints import build
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.recovery import Length
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.training.config import AugmentConfig, TrainConfig
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.rounds import RESTART, Rounds
from bonsai.stages.training.state import TrainState, reproducible

TOP1 = CLASSIFICATION.metric
RMSE = Metric(name="rmse", label="RMSE", direction="lower", best=0.0)
TRAINING = TrainConfig(epochs=10, lr=1.0, warmup_epochs=0)
LENGTH = Length(least=8, most=13, share=0.4, before=2.0)
"""Rounds of 8, 2, 2 and 1 epochs, of 10 steps each."""


def make_rounds(goal: float | None = 0.95, metric: Metric = TOP1) -> Rounds:
    return Rounds(20, 10, TRAINING, LENGTH, metric, goal)


def looked(rounds: Rounds, figures: list[float], metric: Metric = TOP1) -> list[int]:
    """Let every round end with one of the figures; return the steps at which rounds ended."""
    stops, network, history = [], nn.Linear(1, 1, bias=False), list[History]()
    for figure in figures:
        nn.init.constant_(network.weight, figure)
        stops.append(rounds.stop)
        history.append(History(step=rounds.stop, epoch=rounds.stop / 10, phase="branch", loss=1.0, metric=metric.name, validation=figure))
        rounds.look(network, history)
    return stops


@pytest.mark.parametrize(
    ("figures", "stops", "ended", "kept"),
    [
        ([0.96], [100], "goal", 100),
        ([0.90, 0.96], [100, 120], "goal", 120),
        ([0.90, 0.90], [100, 120], "gain", 100),
        ([0.90, 0.92, 0.91], [100, 120, 140], "gain", 120),
        ([0.90, 0.91, 0.92, 0.93], [100, 120, 140, 150], "most", 150),
    ],
)
def test_rounds_follow_while_the_goal_is_missed_and_they_gain(figures: list[float], stops: list[int], ended: str, kept: int) -> None:
    rounds = make_rounds()
    assert looked(rounds, figures) == stops
    assert (rounds.ended, rounds.stop, rounds.kept) == (ended, stops[-1], kept)
    assert float(rounds.weights["weight"]) == pytest.approx(max(figures))


def test_without_a_goal_the_first_round_is_the_last() -> None:
    rounds = make_rounds(goal=None)
    looked(rounds, [0.1])
    assert rounds.ended == "goal"


def test_a_lower_figure_is_a_gain_where_lower_is_better() -> None:
    rounds = make_rounds(goal=1.0, metric=RMSE)
    assert looked(rounds, [3.0, 2.0, 2.5], RMSE) == [100, 120, 140]
    assert (rounds.ended, rounds.kept) == ("gain", 120)


def test_every_round_falls_to_zero_and_later_ones_start_lower(caplog: pytest.LogCaptureFixture) -> None:
    rounds = make_rounds()
    assert rounds.rate(20) == pytest.approx(0.5 * (1 + 0.8090), abs=1e-3)  # where the cycle stood at a fifth
    assert [rounds.rate(step) for step in (100, 110, 120, 130, 140, 145)] == pytest.approx([RESTART * f for f in (1, 0.5, 1, 0.5, 1, 0.5)])
    assert max(rounds.rate(step) for step in (99, 119, 139, 149)) < 0.01
    caplog.set_level("INFO", "bonsai")
    looked(rounds, [0.90, 0.96])
    assert caplog.messages == ["recovery: validation top-1 90.00% after 8 epochs, the gates ask for 95.00%: it goes on to 10"]


def test_the_rate_of_the_first_round_rises_and_then_is_what_it_would_be() -> None:
    plain, rising = make_rounds(), Rounds(20, 10, TRAINING, LENGTH, TOP1, 0.95, warmup=8)
    ratios = [rising.rate(step) / plain.rate(step) for step in (20, 23, 27, 28, 99, 100, 149)]
    assert ratios == pytest.approx([1 / 8, 4 / 8, 1, 1, 1, 1, 1])


def test_what_was_decided_round_trips() -> None:
    one, other = make_rounds(), make_rounds()
    looked(one, [0.90, 0.91])
    other.restore(one.state())
    assert (other.stop, other.kept) == (140, 120)
    assert torch.equal(other.weights["weight"], one.weights["weight"])


class Stopped(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize("killed_in", [3, 4], ids=["in the second round", "in the third"])
def test_a_recovery_that_was_killed_ends_bit_equal(killed_in: int, small_model: ModelConfig, digits: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=128, lr=0.1, warmup_epochs=0, threads=1, augment=AugmentConfig(rotate=10))
    length = Length(least=2, most=4, share=0.4, before=0.0)

    def run(folder: Path, kill: int | None) -> tuple[dict[str, torch.Tensor], Rounds, tuple[History, ...]]:
        phase = Phase("branch", digits, config, folder)
        rounds = Rounds(3, phase.batches.per_epoch, config, length, TOP1, goal=1.0)
        state = TrainState(build(small_model, digits.image_shape, 10), config)

        def stop_there(step: int) -> None:
            if kill is not None and step >= 3 + (kill - 1) * phase.batches.per_epoch:
                raise Stopped

        with reproducible(config):
            history = phase.train(state, (), start=3, stop=rounds.stop, rate=rounds.rate, rounds=rounds, before_epoch=stop_there)
        return rounds.weights, rounds, history

    expected, undisturbed, curve = run(tmp_path / "a", None)
    if len(curve) < killed_in:
        pytest.fail(f"the rounds ended after {len(curve)} epochs: choose another seed")
    with pytest.raises(Stopped):
        run(tmp_path / "b", killed_in)
    found, rounds, continued = run(tmp_path / "b", None)
    assert continued == curve
    assert (rounds.stop, rounds.kept, rounds.ended) == (undisturbed.stop, undisturbed.kept, undisturbed.ended)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
