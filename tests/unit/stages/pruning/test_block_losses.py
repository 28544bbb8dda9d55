"""What the absence of a block costs is the loss that training images have without it."""

import copy
from pathlib import Path

import pytest
import torch
from residual import BLOCKS, NETWORKS, SHAPE
from torch import nn
from torch.nn import functional

from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.pruning.block_losses import BlockLosses, measure_blocks
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.tasks.registry import learning_of
from bonsai.stages.training.config import TrainConfig

LEARNING = learning_of("classification", TrainConfig())


def trained(name: str) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return a network that has learnt a few images by heart, and these."""
    torch.manual_seed(0)
    network: nn.Module = NETWORKS[name]()
    images, targets = random_images(32, SHAPE), torch.arange(32) % 5
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), targets).backward()
        optimizer.step()
    return network.eval(), [(images[:16], targets[:16]), (images[16:], targets[16:])]


@pytest.mark.parametrize("name", ["resnet20", "transformer"])
def test_losses_are_those_of_the_network_without_a_block_or_half_of_a_group(name: str) -> None:
    network, batches = trained(name)
    before = copy.deepcopy(network.state_dict())
    groups = groups_with_blocks(network, SHAPE)
    scores = {group.name: torch.rand(group.width) for group in groups}
    blocks, halved = measure_blocks(network, groups, scores, batches, LEARNING)
    assert {block.name: block.groups for block in blocks} == BLOCKS[name]
    assert set(halved) == {group for inside in BLOCKS[name].values() for group in inside}
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert BlockLosses(folder=Path(), blocks=blocks, halved=halved).tell
    assert any(block.loss > 0.05 for block in blocks)
    shorter = copy.deepcopy(network)
    keep_channels(shorter, KeepChannels(dropped=(blocks[0].name,)))
    for each in (network, shorter):  # BatchNorms by the batch's own statistics
        each.train()
    with torch.no_grad():
        expected = [sum(float(functional.cross_entropy(each(images), targets)) for images, targets in batches) / 2 for each in (network, shorter)]
    assert blocks[0].loss == pytest.approx(expected[1] - expected[0], rel=1e-3, abs=1e-5)


def test_a_block_that_adds_nothing_costs_nothing() -> None:
    network, batches = trained("resnet20")
    nn.init.zeros_(network.get_submodule("layer2.1.bn2").weight)
    nn.init.zeros_(network.get_submodule("layer2.1.bn2").bias)
    groups = groups_with_blocks(network, SHAPE)
    blocks, halved = measure_blocks(network, groups, {group.name: torch.rand(group.width) for group in groups}, batches, LEARNING)
    idle = next(block for block in blocks if block.name == "layer2.1")
    assert idle.loss == pytest.approx(0, abs=1e-6)
    assert halved["layer2.1.conv1"] == pytest.approx(0, abs=1e-6)
    assert max(block.loss for block in blocks) > 0.05


def test_losses_that_do_not_rise_tell_nothing() -> None:
    assert not BlockLosses(folder=Path(), blocks=(), halved={"a": -0.1, "b": 0.05}).tell
