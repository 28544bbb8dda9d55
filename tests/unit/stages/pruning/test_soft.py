import copy

import torch

from stages.artifacts import Dataset
from stages.checkpoints import build
from stages.models.config import ModelConfig
from stages.pruning.removal import Removal
from stages.pruning.schedule import ScheduleConfig
from stages.pruning.soft import Masks
from stages.pruning.statistics import BatchStatistics
from stages.pruning.surgery import cut, find_groups
from stages.training.batches import Batches
from stages.training.config import TrainConfig
from stages.training.loop import train_steps
from stages.training.state import TrainState

CONFIG = TrainConfig(epochs=2, batch_size=128, lr=0.02)
KEPT = {"conv1": (0, 3, 5, 9), "layer1.0.conv1": (1, 2), "layer3.0.conv1": tuple(range(0, 64, 3))}


def trained(model: ModelConfig, digits: Dataset) -> TrainState:
    state = TrainState(build(model, digits.image_shape, 10), CONFIG)
    train_steps(state, Batches(digits, CONFIG), start=0, stop=3, label="t", rate=lambda _: 0.02)
    return state


def test_a_masked_network_is_the_cut_one_at_every_step(small_model: ModelConfig, digits: Dataset) -> None:
    state, batches = trained(small_model, digits), Batches(digits, CONFIG)
    groups = find_groups(state.network, digits.image_shape)
    masks = Masks(state.network, groups)
    masks.set(KEPT)
    images = batches.batch(9)[0]
    for step in range(3, 7):
        with masks.enforced():
            train_steps(state, batches, start=step, stop=step + 1, label="t", rate=lambda _: 0.05)
            masked = state.network.eval()(images)
        small = copy.deepcopy(state.network)
        cut(small, groups, KEPT, digits.image_shape)
        torch.testing.assert_close(masked, small.eval()(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(state.network(images), masked)  # out of the phase the masks are gone


def test_masked_channels_go_on_learning_and_are_scored(small_model: ModelConfig, digits: Dataset) -> None:
    state = trained(small_model, digits)
    groups = find_groups(state.network, digits.image_shape)
    masks, statistics = Masks(state.network, groups), BatchStatistics(state.network, groups, 4)
    masks.set(KEPT)
    gone = [c for c in range(16) if c not in KEPT["layer1.0.conv1"]]
    before = state.network.layer1[0].conv1.weight[gone].detach().clone()
    with masks.enforced():
        train_steps(state, Batches(digits, CONFIG), start=3, stop=5, label="t", rate=lambda _: 0.05, observer=statistics)
    assert (state.network.layer1[0].conv1.weight[gone] - before).abs().flatten(1).amax(1).min() > 1e-5
    for criterion in ("taylor", "bn_gradient", "snip", "hessian"):
        assert (statistics.scores()[criterion]["layer1.0.conv1"][gone] > 0).all()


def test_a_channel_whose_score_recovers_returns_and_is_kept(small_model: ModelConfig, digits: Dataset) -> None:
    state = trained(small_model, digits)
    scores = {"layer1.0.conv1": torch.arange(16.0)}  # at the first step 0 to 3 are masked

    def strengthen(present: TrainState, _: BatchStatistics, __: int) -> None:
        with torch.no_grad():
            present.network.layer1[0].conv1.weight[0] *= 100

    removal = Removal(state, digits.image_shape, "magnitude_l2", ScheduleConfig(name="linear", steps=2, iterations=1, soft=True), window=4)
    removal.run({"layer1.0.conv1": 8}, scores, reselection=None, start=3, train=strengthen)
    assert 0 in removal.kept["layer1.0.conv1"]
    assert len(removal.kept["layer1.0.conv1"]) == 8
    assert removal.returned == 0  # it returned with the cut itself, not under the masks


def test_what_comes_back_is_counted(small_model: ModelConfig, digits: Dataset) -> None:
    network = build(small_model, digits.image_shape, 10)
    masks = Masks(network, find_groups(network, digits.image_shape))
    masks.set({"conv1": tuple(range(8))})
    masks.set({"conv1": (*range(6), 12, 13)})
    masks.set({"conv1": tuple(range(8))})
    assert masks.returned == 4
