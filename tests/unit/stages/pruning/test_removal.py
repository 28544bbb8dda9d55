import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.recipe import load_recipe
from pipeline.trunk import segment_stops
from profiles.errors import ConfigError
from stages.artifacts import Dataset
from stages.checkpoints import build
from stages.models.config import ModelConfig
from stages.pruning.groups import best_channels
from stages.pruning.removal import Removal, require_live
from stages.pruning.schedule import ScheduleConfig, widths_after
from stages.pruning.scores import weight_scores
from stages.pruning.surgery import find_groups
from stages.training.batches import Batches
from stages.training.config import TrainConfig
from stages.training.loop import make_optimizer, train_steps
from stages.training.resume import optimizer_tensors

CONFIG = TrainConfig(epochs=2, batch_size=128, lr=0.02)
FINAL = {"conv1": 8, "layer1.0.conv1": 4, "layer2.0.conv1": 16, "layer3.0.conv2": 20}
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


def trained(model: ModelConfig, digits: Dataset) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = build(model, digits.image_shape, 10)
    optimizer = make_optimizer(network, CONFIG)
    train_steps(network, optimizer, Batches(digits, CONFIG), CONFIG, start=0, stop=2, label="t", rate=lambda _: 0.02)
    return network, optimizer


def scores_of(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    return weight_scores(network, find_groups(network, shape))["magnitude_l2"]


def test_moments_follow_their_channels_through_the_cut(small_model: ModelConfig, digits: Dataset) -> None:
    network, optimizer = trained(small_model, digits)
    before = optimizer_tensors(network, optimizer)
    scores = scores_of(network, digits.image_shape)
    removal = Removal(network, optimizer, digits.image_shape, lambda n: make_optimizer(n, CONFIG))
    removal.cut_to(FINAL, scores)
    after = optimizer_tensors(network, removal.optimizer)
    kept = best_channels(scores, FINAL)
    stream, inner = list(kept["conv1"]), list(kept["layer1.0.conv1"])
    torch.testing.assert_close(after["momentum_buffer.layer1.0.conv1.weight"], before["momentum_buffer.layer1.0.conv1.weight"][inner][:, stream])
    torch.testing.assert_close(after["momentum_buffer.layer1.0.bn2.bias"], before["momentum_buffer.layer1.0.bn2.bias"][stream])
    assert set(after) == set(before)
    assert removal.kept["conv1"] == kept["conv1"]
    assert removal.difference <= 1e-4


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("criterion", ["magnitude_l2", "taylor"])
def test_a_removal_in_steps_ends_at_the_final_widths_with_a_live_optimizer(small_model: ModelConfig, digits: Dataset, name: str, criterion: str) -> None:
    network, optimizer = trained(small_model, digits)
    removal = Removal(network, optimizer, digits.image_shape, lambda n: make_optimizer(n, CONFIG))
    batches, starts, widths = Batches(digits, CONFIG), [], []

    def train(cut: nn.Module, live: torch.optim.Optimizer, statistics: object, start: int) -> None:
        starts.append(start)
        widths.append(cut.conv1.out_channels)
        train_steps(cut, live, batches, CONFIG, start=start, stop=start + 1, label="t", rate=lambda _: 0.02, observer=statistics)

    schedule = ScheduleConfig(name=name, steps=3, iterations=1)
    end = removal.run(FINAL, scores_of(network, digits.image_shape), criterion, schedule, window=4, start=2, train=train)
    assert (end, starts) == (4, [2, 3])
    assert 16 > widths[0] > widths[1] > 8
    assert {name: len(removal.kept[name]) for name in FINAL} == FINAL
    assert network.conv1.out_channels == 8
    assert len(removal.kept["layer2.0.conv2"]) == 32  # not in the plan: left whole
    assert all(
        value.shape == dict(network.named_parameters())[key.split(".", 1)[1]].shape for key, value in optimizer_tensors(network, removal.optimizer).items()
    )


def test_an_optimizer_of_dead_parameters_is_noticed(small_model: ModelConfig, digits: Dataset) -> None:
    network, optimizer = trained(small_model, digits)
    network.conv1.weight = nn.Parameter(network.conv1.weight.detach().clone())
    with pytest.raises(AssertionError, match="other parameters than the network"):
        require_live(network, optimizer)


@pytest.mark.parametrize(("given", "message"), [({"name": "one_shot", "steps": 3}, "has 1 step"), ({"name": "cubic"}, "at least 2")])
def test_a_schedule_of_the_wrong_number_of_steps_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("resnet-edge", {"prune.schedule": given})


def test_a_removal_longer_than_the_training_is_refused_before_it() -> None:
    recipe = load_recipe("resnet-edge", {"prune.schedule": {"name": "linear", "steps": 30, "iterations": 40}})
    with pytest.raises(ConfigError, match="does not end before the training does"):
        segment_stops(recipe, images=1167)
