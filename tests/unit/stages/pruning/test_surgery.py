import copy

import hard_networks
import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import CifarResNet, resnet8
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.pruning.coupling import library
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.equality import Uncuttable, require_equal
from bonsai.stages.pruning.scores import best_channels
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.pruning.trial import refused_groups

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


class FixedWeight(nn.Conv2d):
    """A convolution that takes no other weight."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "weight" and "weight" in self._parameters:
            raise TypeError("this weight is not to be replaced")
        super().__setattr__(name, value)


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
    edit = cut(pruned, groups, kept)
    assert check_cut(dense, pruned, edit, SHAPE) <= 1e-4
    assert sum(p.numel() for p in pruned.parameters()) < 0.6 * sum(p.numel() for p in dense.parameters())
    assert pruned(torch.zeros(2, *SHAPE)).shape[1] in (5, 10)


def test_both_halves_of_a_channel_shuffle_lose_the_same_channels() -> None:
    network = Shuffling()
    groups = find_groups(network, SHAPE)
    (shuffled,) = (group for group in groups if group.name == "first")
    assert shuffled.positions == 2
    assert refused_groups(network, groups, SHAPE) == {}


def test_a_wrong_cut_is_caught() -> None:
    dense = randomised(Shuffling())
    groups = find_groups(dense, SHAPE)
    edit = cut(pruned := copy.deepcopy(dense), groups, {"first": tuple(range(1, groups[0].width))})
    name, axis = next(iter(edit.by_axis()))
    wrong = KeepChannels.of(edit.by_axis() | {(name, axis): tuple(range(len(edit.by_axis()[name, axis])))}, edit.sizes)
    with pytest.raises(ValueError, match="not the same as zeroing"):
        check_cut(dense, pruned, wrong, SHAPE)


def test_outputs_of_another_shape_are_no_equal_ones() -> None:
    with pytest.raises(Uncuttable, match=r"does not run without some of its channels: outputs \(4, 9\) instead of \(4, 10\)"):
        require_equal(torch.randn(4, 10), torch.randn(4, 9))


def test_a_weight_that_cannot_be_replaced_refuses_the_cut_and_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), FixedWeight(6, 5, 3))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(Uncuttable, match="the network cannot be cut: TypeError: this weight is not to be replaced"):
        cut(network, find_groups(network, SHAPE), {"0": (0, 2)})
    assert network[0].out_channels == 6
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_frozen_parameters_stay_frozen_and_are_cut_too() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    network.conv1.weight.requires_grad_(False)
    network.train()
    groups = find_groups(network, SHAPE)
    cut(network, groups, {"conv1": (0, 1, 2)})
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
        cut(network, find_groups(network, SHAPE), kept)


def test_best_channels_keeps_the_first_of_equal_scores() -> None:
    assert best_channels({"a": torch.tensor([1.0, 3.0, 1.0, 2.0])}, {"a": 3}) == {"a": (0, 1, 3)}


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_a_channel_shuffle_before_many_untrained_layers_is_cut_rightly(depth: int) -> None:
    network = hard_networks.Shuffled(depth=depth)
    groups = find_groups(network, (3, 16, 16))
    assert len(groups) == depth + 1
    assert refused_groups(network, groups, (3, 16, 16)) == {}


class FadingBranch(nn.Module):
    """A shuffle within a branch that is scaled by 1e-6, as ConvNeXt's are at first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shuffled, self.branch = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 8), (8, 8), (8, 8)))
        self.scale, self.head = nn.Parameter(torch.full((8, 1, 1), 1e-6)), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.shuffled(x).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return self.head((x + self.scale * self.branch(y)).mean((2, 3)))


def test_a_wrong_cut_in_a_branch_that_hardly_counts_yet_is_caught() -> None:
    network = FadingBranch()
    groups = find_groups(network, SHAPE)
    apart = tuple(group.model_copy(update={"tensors": group.tensors[::-1][1:]}) if group.name == "shuffled" else group for group in groups)
    assert refused_groups(network, groups, SHAPE) == {}
    assert "shuffled" in refused_groups(network, apart, SHAPE)


class Blind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.sign(self.second(self.first(x))).square().mean((2, 3)))


def test_a_network_whose_outputs_hardly_depend_on_the_image_is_refused() -> None:
    network = Blind()
    with pytest.raises(ConfigError, match="the outputs of this network hardly depend on the image, whatever its weights"):
        refused_groups(network, find_groups(network, SHAPE), SHAPE)


class Fails(CifarResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if self.training else {}["head"]


def test_parameters_stay_frozen_and_modes_as_they_were_when_tracing_raises() -> None:
    network = Fails(in_channels=1, num_classes=10, depth=1, width=16)
    network.conv1.weight.requires_grad_(False)
    network.bn1.eval()
    with pytest.raises(
        ConfigError, match=r"(?s)couplings of the network's channels cannot be found\n  given:   KeyError: 'head' \(test_surgery\.py, line \d+\)"
    ):
        find_groups(network, SHAPE)
    assert not network.conv1.weight.requires_grad
    assert (network.training, network.bn1.training, network.layer1.training) == (True, False, True)


class ChunkedGate(nn.Module):
    """Channels that no layer produces in their order: Torch-Pruning finds them, and no group can be named after a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.both, self.second, self.head = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.both(self.first(x)).chunk(2, 1)
        return self.head(self.second(left * torch.sigmoid(right)).mean((2, 3)))


class Mixed(nn.Module):
    """Weights that are mixed from two layers', as searches for architectures do it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.mix = nn.Conv2d(1, 16, 3), nn.Conv2d(1, 16, 3), nn.Parameter(torch.tensor(0.3))
        self.last, self.head = nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.conv2d(x, self.mix * self.one.weight + (1 - self.mix) * self.two.weight)
        return self.head(self.last(torch.relu(x)).mean((2, 3)))


@pytest.mark.parametrize("network", [ChunkedGate(), Mixed()], ids=lambda network: type(network).__name__)
def test_what_cannot_be_grouped_is_refused_and_the_rest_is_cut_rightly(network: nn.Module) -> None:
    groups = find_groups(network, SHAPE)
    refused = refused_groups(network, groups, SHAPE)
    left = {g.name: tuple(range(1, g.width, 2)) for g in groups if g.name not in refused}
    assert left
    dense = copy.deepcopy(network)
    check_cut(dense, network, cut(network, groups, left), SHAPE)


def test_what_torch_pruning_cannot_follow_is_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = resnet8(in_channels=1, num_classes=10)
    groups = find_groups(network, SHAPE)

    def failing(graph: tp.DependencyGraph, module: nn.Module, *arguments: object) -> object:
        raise ZeroDivisionError("integer division or modulo by zero")

    monkeypatch.setattr(tp.DependencyGraph, "get_pruning_group", failing)
    alone = find_groups(network, SHAPE)
    assert [(group.name, group.tensors) for group in alone] == [(group.name, group.tensors) for group in groups]
    assert [set(group.members) for group in alone] == [set(group.members) for group in groups]


def test_torchvision_s_shufflenet_is_cut() -> None:
    network = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=10)
    groups = find_groups(network, (3, 32, 32))
    assert refused_groups(network, groups, (3, 32, 32)) == {}
    assert len(groups) > 16


def without_norms(depth: int) -> nn.Module:
    layers = [layer for position in range(depth) for layer in (nn.Conv2d(16 if position else 1, 16, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Conv2d(16, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_deep_network_without_norms_is_cut_everywhere() -> None:
    network = without_norms(12)
    groups = find_groups(network, SHAPE)
    assert len(groups) == 12
    assert refused_groups(network, groups, SHAPE) == {}


def test_a_group_that_torch_pruning_would_follow_without_end_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = resnet8(in_channels=1, num_classes=10, width=16)
    everything = find_groups(network, (1, 16, 16))
    monkeypatch.setattr(library, "MOST_POSITIONS", 200)
    assert [group.tensors for group in find_groups(network, (1, 16, 16))] == [group.tensors for group in everything]
