import pytest
import torch
from torch import nn

from bonsai.stages.networks.cifar_resnet import series_resnet14
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.pruning.trial import refused_groups
from bonsai.stages.quantization.proof import prove_quantizable
from bonsai.stages.selection.operator_records import count_macs_at, weight_channels
from bonsai.stages.selection.operators import read_operators

SHAPE = (3, 128)


def network() -> nn.Module:
    torch.manual_seed(0)
    return series_resnet14(in_channels=3, num_classes=7)


def test_the_network_maps_series_of_any_length_to_scores() -> None:
    built = build_network(ModelConfig(name="series_resnet14", options={"width": 8}), SHAPE, 7).eval()
    for length in (64, 128, 500):
        assert built(torch.randn(2, 3, length)).shape == (2, 7)


def test_all_channels_but_the_outputs_can_be_cut() -> None:
    built = network()
    groups = find_groups(built, SHAPE)
    assert refused_groups(built, groups, SHAPE) == {}
    assert {group.name: group.width for group in groups} == {
        "conv1": 16,
        "layer2.0.conv2": 32,
        "layer3.0.conv2": 64,
        **{f"layer{stage}.{block}.conv1": 8 * 2**stage for stage in (1, 2, 3) for block in (0, 1)},
    }
    before = count_macs(built, SHAPE)
    cut(built, groups, {group.name: tuple(range(group.width // 2)) for group in groups})
    assert count_macs(built, SHAPE) < 0.3 * before


def test_the_operators_are_all_that_the_network_computes() -> None:
    built = network()
    operators, unseen = read_operators(built, find_groups(built, SHAPE), SHAPE)
    assert unseen == ()
    assert [str(each.operator.op) for each in operators] == ["conv1d"] * 15 + ["global_pool", "linear"]
    assert all(each.quantized for each in operators)
    assert weight_channels(operators, {group.name: group.width for group in find_groups(built, SHAPE)}) == {
        name: (module.weight.shape[1], module.weight.shape[0]) for name, module in built.named_modules() if isinstance(module, nn.Conv1d | nn.Linear)
    }
    assert operators[0].operator.kernel == (1, 9)
    assert (operators[0].operator.width, operators[0].operator.epilogue) == (32, "relu")
    assert count_macs_at(operators, {group.name: group.width for group in find_groups(built, SHAPE)}) == count_macs(built, SHAPE)


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_nothing_of_it_stays_in_float(dialect: str) -> None:
    assert prove_quantizable(network(), SHAPE, (), (dialect,)) == ()
