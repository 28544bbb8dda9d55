from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoints import build
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.pruner import Plan, Pruner
from bonsai.stages.pruning.removal import Removal
from bonsai.stages.pruning.schedule import ScheduleConfig, widths_after
from bonsai.stages.pruning.scores import best_channels, weight_scores
from bonsai.stages.pruning.statistics import BatchStatistics
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.loop import train_steps
from bonsai.stages.training.state import TrainState, reproducible

LEARNING = ClassificationLearning(TrainConfig())

CONFIG = TrainConfig(epochs=2, batch_size=128, lr=0.02)
FINAL = {"conv1": 8, "layer1.0.conv1": 4, "layer2.0.conv1": 16, "layer3.0.conv2": 20}
ONE_SHOT = ScheduleConfig()
SHAPES = ("linear", "geometric", "cubic")


@pytest.mark.parametrize(("name", "expected"), [("linear", [84, 67, 50, 33, 16]), ("geometric", [68, 46, 31, 21, 14]), ("cubic", [59, 33, 20, 15, 14])])
def test_schedules_by_hand(name: str, expected: list[int]) -> None:
    config = ScheduleConfig(name=name, steps=5)
    final = 16 if name == "linear" else 14
    assert [widths_after(s, {"g": 100}, {"g": final}, config)["g"] for s in range(1, 6)] == expected


@given(st.integers(2, 256), st.integers(1, 256), st.integers(2, 30), st.sampled_from(SHAPES))
def test_a_schedule_never_widens_again_and_ends_at_the_final_width(dense: int, final: int, steps: int, name: str) -> None:
    final = min(final, dense)
    widths = [widths_after(s, {"g": dense}, {"g": final}, ScheduleConfig(name=name, steps=steps))["g"] for s in range(1, steps + 1)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == final
    assert widths[0] <= dense


def trained(model: ModelConfig, digits: Dataset, config: TrainConfig = CONFIG) -> TrainState:
    state = TrainState(build(model, digits.image_shape, 10), config)
    train_steps(state, Batches(PreparedImages(digits, "train"), config), LEARNING, start=0, stop=2, label="t", rate=lambda _: 0.02)
    return state


def scores_of(network: nn.Module, shape: tuple[int, int, int], criterion: str = "magnitude_l2") -> dict[str, torch.Tensor]:
    return weight_scores(network, find_groups(network, shape))[criterion]


def removal_of(state: TrainState, digits: Dataset, schedule: ScheduleConfig = ONE_SHOT, criterion: str = "magnitude_l2") -> Removal:
    return Removal(state, digits.image_shape, criterion, schedule, window=4)


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ({}, ["momentum_buffer"]),
        ({"optimizer": "adamw"}, ["exp_avg", "exp_avg_sq"]),
        ({"ema": 0.5, "precision": "fp16"}, ["momentum_buffer", "average.module"]),
    ],
    ids=str,
)
def test_the_training_follows_its_channels_through_the_cut(kind: dict[str, object], moments: list[str], small_model: ModelConfig, digits: Dataset) -> None:
    state = trained(small_model, digits, CONFIG.model_copy(update=kind))
    before, scores = state.tensors(), scores_of(state.network, digits.image_shape)
    removal = removal_of(state, digits)
    removal.pruner.apply(Plan(kept=best_channels(scores, FINAL)))
    after = removal.state.tensors()
    kept = best_channels(scores, FINAL)
    stream, inner = list(kept["conv1"]), list(kept["layer1.0.conv1"])
    for moment in moments:
        torch.testing.assert_close(after[f"{moment}.layer1.0.conv1.weight"], before[f"{moment}.layer1.0.conv1.weight"][inner][:, stream])
        torch.testing.assert_close(after[f"{moment}.layer1.0.bn2.bias"], before[f"{moment}.layer1.0.bn2.bias"][stream])
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items() if value.ndim == 0)
    assert removal.kept["conv1"] == kept["conv1"]
    assert removal.pruner.difference <= 1e-4
    removal.state.require_live()
    assert removal.state.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_frozen_parameters_stay_frozen_through_the_cut(small_model: ModelConfig, digits: Dataset) -> None:
    network = build(small_model, digits.image_shape, 10)
    network.bn1.weight.requires_grad_(False)
    state = TrainState(network, CONFIG)
    train_steps(state, Batches(PreparedImages(digits, "train"), CONFIG), LEARNING, start=0, stop=2, label="t", rate=lambda _: 0.02)
    removal = removal_of(state, digits)
    removal.pruner.apply(Plan(kept=best_channels(scores_of(network, digits.image_shape), FINAL)))
    assert [name for name, p in removal.state.network.named_parameters() if not p.requires_grad] == ["bn1.weight"]
    removal.state.require_live()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("criterion", ["magnitude_l2", "bn_gradient"])
def test_a_removal_in_steps_ends_at_the_final_widths(small_model: ModelConfig, digits: Dataset, name: str, criterion: str, soft: bool) -> None:
    batches, starts, widths = Batches(PreparedImages(digits, "train"), CONFIG), [], []

    def train(state: TrainState, pruner: Pruner, start: int) -> None:
        starts.append(start)
        seen: list[torch.Tensor] = []
        handle = state.network.layer1[0].conv1.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        state.network.eval()(batches.batch(0)[0])
        handle.remove()
        widths.append(int((seen[0].abs().amax((0, 2, 3)) > 0).sum()))
        train_steps(state, batches, LEARNING, start=start, stop=start + 1, label="t", rate=lambda _: 0.02, observer=pruner)

    state = trained(small_model, digits)
    removal = removal_of(state, digits, ScheduleConfig(name=name, steps=3, iterations=1, soft=soft), criterion)
    end = removal.run(FINAL, scores_of(state.network, digits.image_shape), choose=None, start=2, train=train)
    assert (end, starts) == (4, [2, 3])
    assert 16 > widths[0] > widths[1] > 8
    assert {name: len(removal.kept[name]) for name in FINAL} == FINAL
    assert removal.state.network.conv1.out_channels == 8
    assert len(removal.kept["layer2.0.conv2"]) == 32  # not in the plan: left whole
    removal.state.require_live()


@pytest.mark.parametrize(("soft", "momentum"), [(False, 0.9), (True, 0.9), (False, 0.0)])
def test_a_removal_killed_between_cuts_ends_as_an_undisturbed_one(
    small_model: ModelConfig, digits: Dataset, tmp_path: Path, soft: bool, momentum: float
) -> None:
    config = CONFIG.model_copy(update={"momentum": momentum})

    class Killed(Exception):
        pass

    batches = Batches(PreparedImages(digits, "train"), CONFIG)

    def run(folder: Path, *, kill_at: int | None) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
        def train(state: TrainState, pruner: Pruner, start: int) -> None:
            if start == kill_at:
                raise Killed
            train_steps(state, batches, LEARNING, start=start, stop=start + 2, label="t", rate=lambda _: 0.02, observer=pruner)

        with reproducible(CONFIG):
            state = trained(small_model, digits, config)
            removal = removal_of(state, digits, ScheduleConfig(name="linear", steps=4, iterations=2, soft=soft), "bn_gradient")
            removal.run(FINAL, scores_of(state.network, digits.image_shape), choose=None, start=2, train=train, resume=folder)
        facts = {"kept": removal.kept, "returned": removal.returned, "difference": removal.pruner.difference}
        return facts, {**removal.state.network.state_dict(), **removal.state.tensors()}

    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at=6)
    facts, tensors = run(tmp_path / "killed", kill_at=None)
    expected_facts, expected = run(tmp_path / "undisturbed", kill_at=None)
    assert facts == expected_facts
    assert bool(facts["returned"]) == soft
    assert all(torch.equal(value, tensors[name]) for name, value in expected.items())


def test_averages_of_the_trunk_go_on_through_the_cuts(small_model: ModelConfig, digits: Dataset) -> None:
    state, batches = trained(small_model, digits), Batches(PreparedImages(digits, "train"), CONFIG)
    statistics = BatchStatistics(state.network, find_groups(state.network, digits.image_shape), 1000)
    train_steps(state, batches, LEARNING, start=2, stop=4, label="t", rate=lambda _: 0.0, observer=statistics)
    before, scores = statistics.scores()["snip"], scores_of(state.network, digits.image_shape)
    seen: list[dict[str, torch.Tensor]] = []
    removal = removal_of(state, digits, ScheduleConfig(name="linear", steps=2, iterations=1), "snip")
    removal.run(FINAL, scores, choose=None, start=4, train=lambda _, s, __: seen.append(s.scores()), observed=statistics.state())
    first = best_channels(scores, {"conv1": 12})["conv1"]
    torch.testing.assert_close(seen[0]["conv1"], before["conv1"][list(first)])


def test_an_optimizer_of_dead_parameters_is_noticed(small_model: ModelConfig, digits: Dataset) -> None:
    state = trained(small_model, digits)
    state.network.conv1.weight = nn.Parameter(state.network.conv1.weight.detach().clone())
    with pytest.raises(AssertionError, match="other parameters than the network"):
        state.require_live()


@pytest.mark.parametrize(
    ("given", "message"), [({"name": "one_shot", "steps": 3}, "has 1 step"), ({"name": "cubic"}, "at least 2"), ({"soft": True}, "`soft` needs a schedule")]
)
def test_a_schedule_of_the_wrong_number_of_steps_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("resnet-edge", {"prune.schedule": given})


def test_a_removal_longer_than_the_training_is_refused_before_it() -> None:
    recipe = load_recipe("resnet-edge", {"prune.schedule": {"name": "linear", "steps": 30, "iterations": 40}})
    with pytest.raises(ConfigError, match="does not end before the training does"):
        segment_stops(recipe, images=1167)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prune.criterion": "snip"}, "by snip none could return"),
        ({"prune.criterion": "bn_gradient", "training.precision": "fp16"}, "set training.precision to fp32 or bf16"),
    ],
)
def test_a_soft_removal_that_could_not_be_reversed_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("resnet-edge", {"prune.schedule": {"name": "linear", "steps": 4, "soft": True}, **overrides})
