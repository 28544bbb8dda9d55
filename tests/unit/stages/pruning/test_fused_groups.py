"""A network that is pruned in its branches is timed by the groups of the fused one."""

import pytest
import torch
from branched import SHAPE, Branched, Pair
from torch import nn

from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.edits.fusing import Unfusable, fuse, require_same_fused
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.fused_groups import deployed_form, require_fusable
from bonsai.stages.pruning.groups import first_channels
from bonsai.stages.pruning.settling import settle, wake
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.operator_records import weight_channels
from bonsai.stages.selection.operators import list_operators


@pytest.fixture(scope="module")
def network() -> Branched:
    torch.manual_seed(0)
    return Branched()


def test_a_network_without_branches_is_its_own_form() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    groups = find_groups(network, SHAPE)
    assert deployed_form(network, groups, SHAPE) == (network, groups, None)


def test_a_pruned_network_is_fused_by_the_sizes_that_are_left(network: Branched) -> None:
    groups, images = find_groups(network, SHAPE), random_images(4, SHAPE)
    form = deployed_form(network, groups, SHAPE)
    assert form.edit is not None
    twin = Branched()
    wake(twin, images)
    cut(twin, groups, {group.name: tuple(range(1, group.width // 2 + 1)) for group in groups})
    settle(twin, images)
    assert (twin.same.in_chs, twin.same.out_chs, twin.same.groups) == (8, 8, 1)
    assert (twin.depthwise.in_chs, twin.depthwise.out_chs, twin.depthwise.groups) == (8, 8, 8)
    assert (twin.stem.in_chs, twin.stem.out_chs, twin.stem.stride) == (1, 8, 2)
    assert (twin.deep.in_chs, twin.deep.out_chs) == (16, 16)
    assert require_same_fused(twin, form.edit, images) < 1e-10
    require_fusable(network, form.edit, groups, SHAPE)


def test_groups_of_the_fused_network_have_the_names_and_widths_of_those_that_are_pruned(network: Branched) -> None:
    groups = find_groups(network, SHAPE)
    form = deployed_form(network, groups, SHAPE)
    assert [(group.name, group.width) for group in form.groups] == [(group.name, group.width) for group in groups]
    widths = {group.name: group.width // 2 - number for number, group in enumerate(groups)}
    twin = Branched()
    cut(twin, groups, first_channels(widths))
    assert form.edit is not None
    fuse(twin, form.edit)
    operators = list_operators(form.network, form.groups, SHAPE)
    found = {name: module for name, module in twin.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    expected = {
        name: (module.in_channels // module.groups, module.out_channels) if isinstance(module, nn.Conv2d) else (module.in_features, module.out_features)
        for name, module in found.items()
    }
    assert weight_channels(operators, widths) == expected
    assert "same.fused" in expected


def test_branches_whose_fused_layers_have_other_sizes_are_refused() -> None:
    class Padded(Pair):
        def fuse(self) -> nn.Module:
            made = super().fuse()
            assert isinstance(made, nn.Conv2d)
            made.register_buffer("spare", torch.zeros(made.out_channels + 1))
            return made

    network = Branched()
    network.pair = Padded(16, 32)
    with pytest.raises(Unfusable, match="the groups of the network's branches are not those of the fused network"):
        deployed_form(network, find_groups(network, SHAPE), SHAPE)


def test_branches_that_are_not_fused_without_some_channels_are_refused() -> None:
    class Stubborn(Pair):
        def fuse(self) -> nn.Module:
            assert self.one[0].out_channels == 32, "only as built"
            return super().fuse()

    network = Branched()
    network.pair = Stubborn(16, 32)
    with pytest.raises(Unfusable, match=r"module pair of the network cannot be fused\n.*only as built"):
        deployed_form(network, find_groups(network, SHAPE), SHAPE)
