"""Whole residual blocks leave a network: what is computed without them is what is computed where their parameters are zero."""

import copy

import pytest
import torch
from residual import BLOCKS, NETWORKS, SHAPE, Bottlenecks
from torch import nn

from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.pruning.blocks import droppable, groups_with_blocks
from bonsai.stages.pruning.carrying import keep_in_training
from bonsai.stages.pruning.coupling.editing import groups_left
from bonsai.stages.pruning.equality import outputs
from bonsai.stages.pruning.groups import Group, Kept, blocks_of
from bonsai.stages.pruning.pruner import Plan, Pruner
from bonsai.stages.pruning.settling import settle, wake
from bonsai.stages.pruning.surgery import check_cut, cut


def awake(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = NETWORKS[name]()
    images = random_images(4, SHAPE)
    wake(network, images)
    settle(network, images)
    return network.eval()


def plan_without(groups: tuple[Group, ...], block: str) -> Kept:
    """Leave one block out, and every second channel of all other groups."""
    return {group.name: () if group.block == block else tuple(range(0, group.width, 2)) for group in groups}


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_with_a_plain_skip_connection_are_found_with_their_groups(name: str) -> None:
    network = awake(name)
    before = copy.deepcopy(network.state_dict())
    assert blocks_of(groups_with_blocks(network, SHAPE)) == BLOCKS[name]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_a_block_is_masking_it_whatever_leaves_with_it(name: str) -> None:
    network = awake(name)
    groups = groups_with_blocks(network, SHAPE)
    for block in BLOCKS[name]:
        pruned = copy.deepcopy(network)
        edit = cut(pruned, groups, plan_without(groups, block))
        assert edit.dropped == (block,)
        assert not any(key.startswith(f"{block}.") for key in pruned.state_dict())
        assert check_cut(network, pruned, edit, SHAPE) < 1e-4
        assert not torch.allclose(outputs(network, random_images(4, SHAPE)), outputs(pruned, random_images(4, SHAPE)), rtol=1e-2)


@pytest.mark.parametrize("name", ["resnet20", "bottlenecks", "transformer"])
def test_several_cuts_are_one_edit_that_rebuilds_the_network(name: str) -> None:
    network = awake(name)
    groups, (first, second, *_) = groups_with_blocks(network, SHAPE), BLOCKS[name]
    kept = plan_without(groups, first)
    pruned = copy.deepcopy(network)
    edit = cut(pruned, groups, kept)
    left = groups_left(groups, kept)
    assert {group.name for group in groups} - {group.name for group in left} == set(BLOCKS[name][first])
    again = {group.name: () if group.block == second else tuple(range(group.width - 1)) for group in left}
    edit = edit.then(cut(pruned, left, again))
    assert edit.dropped == (first, second)
    assert not any(edit.drops(tensor) for tensor, _ in edit.by_axis())
    rebuilt = awake(name, seed=1)
    keep_channels(rebuilt, KeepChannels.model_validate_json(edit.model_dump_json()))
    rebuilt.load_state_dict(pruned.state_dict())
    assert torch.equal(outputs(rebuilt, random_images(4, SHAPE)), outputs(pruned, random_images(4, SHAPE)))
    assert check_cut(network, pruned, edit, SHAPE) < 1e-4


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.AdamW(p, lr=0.01)])
def test_the_optimizer_loses_the_blocks_parameters_and_keeps_the_others_moments(make: type) -> None:
    network = awake("resnet20").train()
    to_channels_last(network)
    optimizer: torch.optim.Optimizer = make(network.parameters())
    network(random_images(4, SHAPE)).square().mean().backward()
    optimizer.step()
    moment = "momentum_buffer" if isinstance(optimizer, torch.optim.SGD) else "exp_avg"
    names = {parameter: name for name, parameter in network.named_parameters()}
    before = {names[parameter]: state[moment].clone() for parameter, state in optimizer.state.items()}
    groups = groups_with_blocks(network, SHAPE)
    kept = plan_without(groups, "layer2.1")
    average = copy.deepcopy(network)
    edit = cut(copy.deepcopy(network), groups, kept)
    keep_in_training(network, optimizer, [average], edit)
    live = dict(network.named_parameters())
    assert {id(parameter) for group in optimizer.param_groups for parameter in group["params"]} == {id(parameter) for parameter in live.values()}
    assert {name for name in before if not edit.drops(name)} == set(live)
    assert sum(map(edit.drops, before)) == 6
    for name, parameter in live.items():
        expected = before[name]
        for (tensor, axis), indices in edit.by_axis().items():
            expected = expected.index_select(axis, torch.tensor(indices)) if tensor == name else expected
        assert torch.equal(optimizer.state[parameter][moment], expected)
    assert isinstance(average.get_submodule("layer2.1"), nn.Identity)
    network(random_images(4, SHAPE)).mean().backward()
    optimizer.step()


def test_a_pruner_leaves_a_block_out_and_a_killed_one_goes_on() -> None:
    network = awake("bottlenecks").train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(network, optimizer, SHAPE, groups=groups_with_blocks(network, SHAPE))
    network(random_images(4, SHAPE)).mean().backward()
    pruner.observe()
    pruner.apply(Plan(kept={"first.branch.0": (), "first.branch.3": (), "stem.0": tuple(range(8))}))
    assert pruner.kept["first.branch.0"] == ()
    assert set(pruner.scores()) == {group.name for group in pruner.groups} == set(pruner.kept) - {"first.branch.0", "first.branch.3"}
    network(random_images(4, SHAPE)).mean().backward()
    pruner.observe()
    other = awake("bottlenecks", seed=1).train()
    resumed = Pruner(other, torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9), SHAPE, groups=groups_with_blocks(other, SHAPE))
    resumed.load_state_dict(pruner.state_dict())
    other.load_state_dict(network.state_dict())
    assert torch.equal(outputs(other, random_images(4, SHAPE)), outputs(network, random_images(4, SHAPE)))
    assert all(torch.equal(resumed.scores()[name], score) for name, score in pruner.scores().items())


def test_a_part_of_a_block_cannot_be_emptied() -> None:
    network = Bottlenecks()
    groups = groups_with_blocks(network, SHAPE)
    for kept in ({"first.branch.0": ()}, {"first.branch.0": (), "first.branch.3": (0,)}, {"stem.0": ()}):
        with pytest.raises(ValueError, match="keep at least one"):
            cut(network, groups, kept)


def test_a_block_with_something_that_must_stay_is_not_offered() -> None:
    network = Bottlenecks()
    groups = groups_with_blocks(network, SHAPE)
    names = {group.name for group in groups}
    assert set(blocks_of(droppable(groups, names, (), network))) == {"first", "second"}
    assert set(blocks_of(droppable(groups, names - {"first.branch.3"}, (), network))) == {"second"}
    assert set(blocks_of(droppable(groups, names, ("second.branch.6",), network))) == {"first"}
    assert blocks_of(droppable(groups, names, ("*",), network)) == {}
