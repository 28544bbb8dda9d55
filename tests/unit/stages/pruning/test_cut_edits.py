"""The edit that a cut yields says all of it: a network of other weights is cut alike by it. Where Torch-Pruning can cut, it cuts alike, too."""

import copy

import hard_networks
import harder_networks
import pytest
import torch
import torch_pruning as tp
from cuttable import CUT, SHAPE
from torch import nn

from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.coupling.library import library_groups
from bonsai.stages.pruning.equality import outputs
from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.pruning.trial import refused_groups

HARD = ("FusedNorm", "SharedConvolution", "Siamese", "Hooked", "ChannelAttention", "AttentionPool", "CosineHead", "ReflectPadding", "Factorised")
HARDER = ("NewWeightNorm", "SpectralNorm", "SharedBatchNorm", "SplitTokens", "ShuffleUnit", "Standardised", "SplitDepthwise", "Aggregated", "Mixed")
SHIPPED = ("resnet20", "unet", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")
MAKERS = {
    **{name: make for name, (make, _) in CUT.items()},
    **{name: getattr(hard_networks, name) for name in HARD},
    **{name: getattr(harder_networks, name) for name in HARDER},
    **{name: lambda name=name: build_network(ModelConfig(name=name), SHAPE, 10, seed=torch.initial_seed()) for name in SHIPPED},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # torch, of a parametrised weight
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning"),  # Torch-Pruning, of parameters without a layer
]


def made(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = MAKERS[name]()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():  # what is constant at first, such as gammas, hides a wrong position
            tensor.data.mul_(0.9 + 0.2 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    return network.eval()


def cut_by_library(network: nn.Module, groups: tuple[Group, ...], kept: Kept) -> None:
    """Let Torch-Pruning itself cut a network."""
    graph = tp.DependencyGraph().build_dependency(network, (torch.zeros(2, *SHAPE),), verbose=False)
    for group in (group for group in groups if len(kept.get(group.name, range(group.width))) < group.width):
        layer = network.get_submodule(group.name)
        prune = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
        graph.get_pruning_group(layer, prune, sorted(set(range(group.width)) - set(kept[group.name]))).prune()


def shapes_of(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", MAKERS)
def test_the_edit_of_a_cut_is_all_of_it(name: str) -> None:
    network = made(name, seed=0)
    groups = find_groups(network, SHAPE)
    refused = refused_groups(network, groups, SHAPE) if name not in SHIPPED else {}
    left = [group for group in groups if group.name not in refused]
    assert left
    kept = {group.name: tuple(sorted(torch.randperm(group.width)[: -(-group.width // 2)].tolist())) for group in left}
    by_library, rebuilt = copy.deepcopy(network), made(name, seed=1)
    edit = cut(network, groups, kept)
    keep_channels(rebuilt, KeepChannels.model_validate_json(edit.model_dump_json()))
    assert shapes_of(rebuilt) == shapes_of(network)
    load_weights(rebuilt, network.state_dict())
    assert str(network) == str(rebuilt)
    images = torch.rand(2, *SHAPE)
    answers = outputs(network, images)
    assert answers.isfinite().all()
    assert torch.equal(answers, outputs(rebuilt, images))
    if name in SHIPPED:
        cut_by_library(by_library, groups, kept)
        assert str(by_library) == str(network)
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in by_library.state_dict().items())
        assert torch.equal(answers, outputs(by_library, images))


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_torch_pruning_names_the_members_of_plain_groups(name: str) -> None:
    network = made(name, seed=0)
    members = {frozenset(found) for found in library_groups(network, SHAPE)}
    assert all(frozenset(group.members) in members for group in find_groups(network, SHAPE))
