import copy

import pytest
import torch
from torch import nn

from stages.models.cifar_resnet import resnet8
from stages.pruning.groups import best_channels
from stages.pruning.surgery import check_cut, cut, find_groups, refused_groups

SHAPE = (1, 16, 16)


class Concatenating(nn.Module):
    """Two branches, one depthwise, concatenated before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 8, 3, padding=1)
        self.right = nn.Conv2d(1, 12, 3, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.BatchNorm2d(20)
        self.head = nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.left(x), self.depthwise(self.right(x))], 1)
        return self.head(torch.relu(self.norm(both)).mean((2, 3)))


class Shuffling(nn.Module):
    """A channel shuffle, which Torch-Pruning prunes wrongly without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return self.head(torch.relu(self.second(y)).mean((2, 3)))


def randomised(network: nn.Module) -> nn.Module:
    """Give BatchNorm statistics that are not the identity."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def test_groups_couple_residual_adds_and_leave_the_logits_alone() -> None:
    groups = {g.name: g for g in find_groups(resnet8(in_channels=1, num_classes=10), SHAPE)}
    assert {name: g.width for name, g in groups.items()} == {
        "conv1": 16,
        "layer1.0.conv1": 16,
        "layer2.0.conv1": 32,
        "layer2.0.conv2": 32,
        "layer3.0.conv1": 64,
        "layer3.0.conv2": 64,
    }
    stream = {m.module for m in groups["conv1"].members if m.side == "out"}
    assert {"conv1", "bn1", "layer1.0.conv2", "layer1.0.bn2"} <= stream
    assert not any(m.module == "fc" and m.side == "out" for g in groups.values() for m in g.members)


@pytest.mark.parametrize("network", [resnet8(in_channels=1, num_classes=10), Concatenating()], ids=["residual", "concatenation and depthwise"])
def test_removing_channels_is_the_same_as_zeroing_them(network: nn.Module) -> None:
    dense = randomised(network)
    groups = find_groups(dense, SHAPE)
    kept = {g.name: tuple(range(1, g.width, 2)) for g in groups}
    pruned = copy.deepcopy(dense)
    cut(pruned, groups, kept, SHAPE)
    assert check_cut(dense, pruned, groups, kept, SHAPE) <= 1e-4
    assert sum(p.numel() for p in pruned.parameters()) < 0.6 * sum(p.numel() for p in dense.parameters())
    assert pruned(torch.zeros(2, *SHAPE)).shape[1] in (5, 10)


def test_a_channel_shuffle_is_caught_instead_of_cut_wrongly() -> None:
    dense = randomised(Shuffling())
    groups = find_groups(dense, SHAPE)
    wrong = {"first": (0, 1, 2, 3)}
    pruned = copy.deepcopy(dense)
    cut(pruned, groups, wrong, SHAPE)
    with pytest.raises(ValueError, match="not the same as zeroing"):
        check_cut(dense, pruned, groups, wrong, SHAPE)


def test_only_the_group_behind_a_channel_shuffle_is_refused() -> None:
    network = Shuffling()
    refused = refused_groups(network, find_groups(network, SHAPE), SHAPE)
    assert list(refused) == ["first"]
    assert "not the same as zeroing" in refused["first"]


def test_frozen_parameters_stay_frozen_and_are_cut_too() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    network.conv1.weight.requires_grad_(False)
    network.train()
    groups = find_groups(network, SHAPE)
    cut(network, groups, {"conv1": (0, 1, 2)}, SHAPE)
    assert network.conv1.weight.shape[0] == 3
    assert not network.conv1.weight.requires_grad
    assert network.layer1[0].conv1.weight.requires_grad
    assert network.training


@pytest.mark.parametrize(
    ("kept", "message"), [({"nothing": (0,)}, "the network has conv1"), ({"conv1": ()}, "keep at least one"), ({"conv1": (99,)}, "keep at least one")]
)
def test_an_impossible_cut_names_the_group(kept: dict[str, tuple[int, ...]], message: str) -> None:
    network = resnet8(in_channels=1, num_classes=10)
    with pytest.raises(ValueError, match=message):
        cut(network, find_groups(network, SHAPE), kept, SHAPE)


def test_best_channels_keeps_the_first_of_equal_scores() -> None:
    assert best_channels({"a": torch.tensor([1.0, 3.0, 1.0, 2.0])}, {"a": 3}) == {"a": (0, 1, 3)}
