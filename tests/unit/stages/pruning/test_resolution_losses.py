"""What smaller images cost is the loss that a network has on them, beside the loss without half of each group."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.pruning.coupling.editing import edit_of
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.coupling.masking import masked
from bonsai.stages.pruning.resolution_losses import ResolutionLosses, measure_resolutions
from bonsai.stages.pruning.scores import best_channels
from bonsai.stages.tasks.registry import learning_of
from bonsai.stages.training.config import TrainConfig

SHAPE, SIZES = (1, 16, 16), ((12, 12), (4, 4))
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def mean_loss(network: nn.Module, batches: Batches) -> float:
    network.train()  # BatchNorms by the batch's own statistics
    with torch.no_grad():
        return sum(float(functional.cross_entropy(network(images), targets)) for images, targets in batches) / len(batches)


def test_losses_are_those_of_the_network_on_smaller_images_and_without_half_of_a_group() -> None:
    torch.manual_seed(0)
    network = resnet8(in_channels=1, num_classes=5, width=8)
    images, targets = random_images(32, SHAPE), torch.arange(32) % 5
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), targets).backward()
        optimizer.step()
    full = [(images[:16], targets[:16]), (images[16:], targets[16:])]
    smaller = {size: [(functional.interpolate(some, size, mode="area"), labels) for some, labels in full] for size in SIZES}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = find_groups(network, SHAPE)
    scores = {group.name: torch.rand(group.width) for group in groups}
    names = [groups[0].name, groups[2].name]
    found, halved = measure_resolutions(network.eval(), groups, names, scores, full, smaller, learning_of("classification", TrainConfig()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [each.size for each in found] == list(SIZES)
    assert list(halved) == names
    expected = mean_loss(network, full)
    for each in found:
        assert each.loss == pytest.approx(mean_loss(network, smaller[each.size]) - expected, rel=1e-3, abs=1e-5)
    assert found[1].loss > 0.05
    with masked(network, edit_of(network, groups, best_channels(scores, {names[0]: groups[0].width // 2}))):
        assert halved[names[0]] == pytest.approx(mean_loss(network, full) - expected, rel=1e-3, abs=1e-5)


def test_losses_that_do_not_rise_tell_nothing() -> None:
    assert not ResolutionLosses(folder=Path(), sizes=(), halved={"a": -0.1, "b": 0.05}).tell
