import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoints import build
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.pruner import Pruner
from bonsai.stages.pruning.removal import Removal
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.pruning.statistics import BatchStatistics
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.pruning.trial import refused_groups
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.loop import train_steps
from bonsai.stages.training.state import TrainState

LEARNING = ClassificationLearning(TrainConfig())

CONFIG = TrainConfig(epochs=2, batch_size=128, lr=0.02)
KEPT = {"conv1": (0, 3, 5, 9), "layer1.0.conv1": (1, 2), "layer3.0.conv1": tuple(range(0, 64, 3))}


def trained(model: ModelConfig, digits: Dataset) -> TrainState:
    state = TrainState(build(model, digits.image_shape, 10), CONFIG)
    train_steps(state, Batches(PreparedImages(digits, "train"), CONFIG), LEARNING, start=0, stop=3, label="t", rate=lambda _: 0.02)
    return state


def test_a_masked_network_is_the_cut_one_at_every_step(small_model: ModelConfig, digits: Dataset) -> None:
    state, batches = trained(small_model, digits), Batches(PreparedImages(digits, "train"), CONFIG)
    groups = find_groups(state.network, digits.image_shape)
    masks = Masks(state.network, groups)
    masks.set(KEPT)
    images = batches.batch(9)[0]
    for step in range(3, 7):
        with masks.enforced():
            train_steps(state, batches, LEARNING, start=step, stop=step + 1, label="t", rate=lambda _: 0.05)
            masked = state.network.eval()(images)
        small = copy.deepcopy(state.network)
        cut(small, groups, KEPT)
        torch.testing.assert_close(masked, small.eval()(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(state.network(images), masked)  # out of the phase the masks are gone


def test_a_masked_channel_is_held_but_scored(small_model: ModelConfig, digits: Dataset) -> None:
    state = TrainState(build(small_model, digits.image_shape, 10), CONFIG.model_copy(update={"weight_decay": 0, "momentum": 0}))
    train_steps(state, Batches(PreparedImages(digits, "train"), CONFIG), LEARNING, start=0, stop=3, label="t", rate=lambda _: 0.02)
    groups = find_groups(state.network, digits.image_shape)
    masks = Masks(state.network, groups)
    masks.set(KEPT)
    gone = [c for c in range(16) if c not in KEPT["layer1.0.conv1"]]
    convolution = state.network.layer1[0].conv1
    before = convolution.weight.detach().clone()
    statistics = BatchStatistics(state.network, groups, 4, masks)
    with masks.enforced():
        train_steps(state, Batches(PreparedImages(digits, "train"), CONFIG), LEARNING, start=3, stop=5, label="t", rate=lambda _: 0.05, observer=statistics)
    assert torch.equal(convolution.weight[gone], before[gone])
    assert not torch.equal(convolution.weight[[1, 2]], before[[1, 2]])
    assert (statistics.scores()["bn_gradient"]["layer1.0.conv1"] > 0).all()


def test_a_slope_is_the_derivative_of_the_loss_by_the_mask(small_model: ModelConfig, digits: Dataset) -> None:
    network = build(small_model, digits.image_shape, 10).eval()
    groups = find_groups(network, digits.image_shape)
    masks = Masks(network.double(), groups)
    images, labels = (tensor[:32] for tensor in Batches(PreparedImages(digits, "train"), CONFIG).batch(0))
    masks.set({"layer2.0.conv1": tuple(range(1, 32))})  # channel 0 is masked

    def loss(masked: bool) -> torch.Tensor:
        with masks.enforced() if masked else nullcontext():
            return functional.cross_entropy(network(images.double()), labels)

    loss(masked=True).backward()
    slope_of = masks.take_slopes()["layer2.0.conv1"]
    norm = network.layer2[0].bn1
    with torch.no_grad():  # a channel of almost no weight is a mask of almost zero
        full, shift = norm.weight[0].clone(), norm.bias[0].clone()
        norm.weight[0], norm.bias[0] = full * 1e-4, shift * 1e-4
        slope = (loss(masked=False) - loss(masked=True)) / 1e-4
    assert float(slope_of[0]) == pytest.approx(abs(float(slope)), rel=1e-2)
    assert not slope_of[1:].any()
    assert not masks.take_slopes()["layer2.0.conv1"].any()


class Tokens(nn.Module):
    """Patches as tokens (n, t, c) through linear layers, whose channels are last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 12, 4, 4)
        self.hidden, self.back, self.head = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.back(torch.relu(self.hidden(tokens))).mean(1))


def test_channels_of_linear_layers_are_the_last_dimension() -> None:
    torch.manual_seed(0)
    network, shape = Tokens(), (1, 16, 16)
    groups = tuple(g for g in find_groups(network, shape) if g.name not in refused_groups(network, find_groups(network, shape), shape))
    kept = {"hidden": (0, 3, 4, 19)}
    assert "hidden" in {g.name for g in groups}
    masks, images = Masks(network, groups), torch.randn(3, *shape)
    masks.set(kept)
    statistics = BatchStatistics(network, groups, 4, masks)
    with masks.enforced():
        masked = network(images)
        masked.square().sum().backward()
        statistics.observe()
    small = copy.deepcopy(network)
    cut(small, groups, kept)
    torch.testing.assert_close(masked, small(images))
    assert (statistics.scores()["bn_gradient"]["hidden"] > 0).any()


def test_a_channel_whose_score_recovers_returns_and_is_kept(small_model: ModelConfig, digits: Dataset) -> None:
    state = trained(small_model, digits)
    scores = {"layer1.0.conv1": torch.arange(16.0)}  # at the first step 0 to 3 are masked

    def strengthen(present: TrainState, _: Pruner, __: int) -> None:
        with torch.no_grad():
            present.network.layer1[0].conv1.weight[0] *= 100

    removal = Removal(state, digits.image_shape, "magnitude_l2", ScheduleConfig(name="linear", steps=2, iterations=1, soft=True), window=4)
    removal.run({"layer1.0.conv1": 8}, scores, choose=None, start=3, train=strengthen)
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
