"""Every operator has its true size, and its channels follow the groups that surgery cuts."""

import copy
import random
from collections.abc import Callable

import hard_networks
import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group, first_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.pruning.trial import refused_groups
from bonsai.stages.selection.operator_records import Operator, count_macs_at, count_weights_at, weight_channels
from bonsai.stages.selection.operators import list_operators, read_operators
from bonsai.stages.selection.values import reciprocal_values

SHAPE = (3, 16, 16)


class StdConv(nn.Conv2d):
    """A convolution of standardised weights: a class of the user's, which a tracer looks into."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Standardised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.row, self.last = StdConv(3, 32, 3, 2, 1), StdConv(32, 24, (1, 5), 1, (0, 2)), StdConv(24, 48, 3)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.row(functional.relu(self.stem(x))))
        return self.fc(functional.relu(self.last(x)).mean((2, 3)))


class Mixed(nn.Module):
    """Transposed, dilated, non-square depthwise, grouped, with two outputs per channel, called twice, joined, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.dilated = nn.Conv2d(3, 32, 3, 2, 1), nn.ConvTranspose2d(32, 24, 2, 2), nn.Conv2d(24, 32, 3, padding=2, dilation=2)
        self.depthwise, self.point = nn.Conv2d(32, 32, (5, 1), padding=(2, 0), groups=32), nn.Conv2d(32, 32, 1)
        self.grouped, self.multiplied = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.Conv2d(32, 64, 3, padding=1, groups=32)
        self.left, self.right, self.joined = nn.Conv2d(64, 32, 1), nn.Conv2d(64, 16, 1), nn.Conv2d(48, 16, 1)
        self.fc = nn.Linear(16 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.dilated(functional.relu(self.up(functional.silu(self.stem(x))))))
        x = functional.relu(self.grouped(self.point(functional.relu6(self.depthwise(x)))))
        x = self.multiplied(x)
        x = torch.cat([functional.relu(self.left(x)), functional.relu(self.right(x))], 1)
        return self.fc(functional.max_pool2d(self.joined(x), 2).flatten(1))


class Tokens(nn.Module):
    """A block of a vision transformer: linear layers on tokens, products of two tensors, GELU."""

    def __init__(self, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.patch, self.norm, self.qkv, self.proj = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2, self.head = nn.Linear(dim, 64), nn.Linear(64, dim), nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        n, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, dim)
        x = x + self.proj(y)
        return self.head((x + self.fc2(functional.gelu(self.fc1(x)))).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": lambda: resnet8(in_channels=3, num_classes=10, width=16),
    "standardised": Standardised,
    "mixed": Mixed,
    "tokens": Tokens,
    **{
        name: getattr(hard_networks, name)
        for name in ("Factorised", "ChannelAttention", "AttentionPool", "CosineHead", "ReflectPadding", "SharedConvolution", "FusedNorm", "Siamese")
    },
}


def read(network: nn.Module) -> tuple[tuple[Group, ...], dict[str, Operator]]:
    groups = find_groups(network, SHAPE)
    return groups, {operator.module: operator for operator in list_operators(network, groups, SHAPE)}


@pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning")  # Torch-Pruning's, of CosineHead
@pytest.mark.parametrize("name", NETWORKS)
def test_the_operators_do_the_work_that_torch_counts_in_the_dense_and_in_a_narrowed_network(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    found = find_groups(network, SHAPE)
    refused = refused_groups(network, found, SHAPE)
    groups = tuple(group for group in found if group.name not in refused)
    operators, unseen = read_operators(network, groups, SHAPE)
    dense = {group.name: group.width for group in groups}
    assert unseen == ()
    assert count_macs_at(operators, dense) == count_macs(network, SHAPE)
    rng = random.Random(1)
    widths = {group: rng.randint(1, width) for group, width in dense.items()}
    narrowed = copy.deepcopy(network)
    cut(narrowed, found, first_channels(widths))
    assert count_macs_at(operators, widths) == count_macs(narrowed, SHAPE)


def test_a_factorised_convolution_has_seven_weights_a_filter_and_turning_the_image_changes_nothing() -> None:
    _, operators = read(hard_networks.Factorised().eval())
    row, column = operators["row"], operators["column"]
    assert (row.operator.kernel, column.operator.kernel) == ((1, 7), (7, 1))
    assert row.operator.weights(48, 48) == column.operator.weights(48, 48) == 48 * 48 * 7
    assert row.operator.macs(48, 48) == column.operator.macs(48, 48) == 48 * 48 * 7 * 16 * 16


def test_every_kind_of_convolution_has_its_own_class() -> None:
    groups, operators = read(Mixed().eval())
    classes = {name: operator.operator for name, operator in operators.items()}
    assert classes["up"].op == "conv_transposed"
    assert (classes["up"].reads, classes["up"].height) == ((8, 8), 16)
    assert classes["dilated"].dilation == (2, 2)
    assert (classes["depthwise"].kernel, classes["depthwise"].depthwise) == ((5, 1), True)
    assert (classes["grouped"].groups, classes["grouped"].depthwise) == (4, False)
    assert operators["grouped"].macs({group.name: group.width for group in groups}) == 32 * 8 * 9 * 16 * 16
    assert (classes["multiplied"].depthwise, classes["multiplied"].group_channels) == (True, (1, 2))
    assert operators["multiplied"].channels({group.name: group.width for group in groups}) == (32, 64)


def test_a_subclassed_convolution_is_listed_under_its_name_with_its_groups() -> None:
    groups, operators = read(Standardised().eval())
    assert operators["row"].operator.kernel == (1, 5)
    assert (operators["row"].inputs, operators["row"].fixed_inputs) == ((), 32)  # its weights are standardised over the inputs
    assert (operators["last"].outputs, operators["last"].fixed_outputs) == ((("last", 1),), 0)
    assert not operators["row"].quantized
    assert not set(weight_channels(operators.values(), {group.name: group.width for group in groups})) & {
        "stem",
        "row",
        "last",
    }  # an export holds their weights computed


def test_layers_on_tokens_and_products_of_two_tensors_say_their_rows() -> None:
    _, operators = read(Tokens().eval())
    assert (operators["fc1"].operator.op, operators["fc1"].operator.tokens, operators["fc1"].outputs) == ("linear", 16, (("fc1", 1),))
    products = [operator for operator in operators.values() if operator.operator.op == "matmul"]
    assert [(each.operator.group_channels, each.operator.tokens, each.channels({"qkv": 4})) for each in products] == [
        ((8, 16), 16, (32, 64)),
        ((16, 8), 16, (64, 32)),
    ]
    assert [each.operator.num_groups(each.channels({"qkv": 3})[0]) for each in products] == [3, 3]  # whole heads leave
    softmax = operators["softmax()"]
    assert (softmax.operator.group_channels, softmax.operator.height, softmax.inputs) == ((16, 16), 16, (("qkv", 16),))
    assert operators["gelu()"].inputs == (("fc1", 1),)


@pytest.mark.parametrize("free", [True, False])
def test_poolings_of_a_series_are_listed_by_their_times_whether_channels_may_leave_or_not(free: bool) -> None:
    class Pools(nn.Sequential):
        def __init__(self) -> None:
            pools = [nn.AvgPool1d(4, 2, 1), nn.MaxPool1d(2), nn.BatchNorm1d(16), nn.AdaptiveAvgPool1d(8), nn.AdaptiveMaxPool1d(4)]
            super().__init__(nn.Conv1d(3, 16, 5, padding=2), *pools, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5))

    network = Pools().eval()
    groups = find_groups(network, (3, 128)) if free else ()
    operators, unseen = read_operators(network, groups, (3, 128))
    pools = [each for each in operators if each.operator.is_light]
    assert unseen == ()
    assert [(str(each.operator.op), each.operator.kernel[0], each.operator.reads[0], each.operator.height) for each in pools] == [
        ("avg_pool", 4, 128, 64),
        ("max_pool", 2, 64, 32),
        ("batch_norm", 1, 32, 32),
        ("avg_pool", 4, 32, 8),
        ("max_pool", 2, 8, 4),
        ("global_pool", 1, 4, 1),
    ]
    assert [each.channels({"0": 16}) for each in pools] == [(16, 16)] * 6
    assert [each.quantized for each in pools] == [False, True, True, False, True, True]  # the quantiser has no averaging over windows of a series


def test_what_is_fused_is_listed_once_and_what_is_not_has_a_class_of_its_own() -> None:
    _, operators = read(Mixed().eval())
    assert operators["depthwise"].operator.epilogue == "relu"  # a clip at 6
    light = [operator.operator.op for operator in operators.values() if operator.operator.is_light]
    assert light == ["silu", "hardswish", "concat", "max_pool"]
    assert operators["cat()"].inputs == (("left", 1), ("right", 1))
    assert operators["joined"].inputs == (("left", 1), ("right", 1))
    assert operators["fc"].inputs == (("joined", 64),)


def test_what_no_class_describes_is_unseen_with_its_work() -> None:
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.deep, self.fc = nn.Conv2d(3, 16, 3, padding=1), nn.Conv3d(1, 1, 3, padding=1), nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.deep(self.conv(x).unsqueeze(1)).squeeze(1).mean((2, 3)))

    operators, (unseen,) = read_operators(Volume().eval(), (), SHAPE)
    assert (unseen.name, unseen.macs) == ("deep (convolution)", 27 * 16 * 16 * 16)
    assert count_macs_at(operators, {}) + unseen.macs == count_macs(Volume(), SHAPE)


def test_a_layer_that_is_called_twice_works_twice_and_has_one_weight() -> None:
    network = hard_networks.Siamese().eval()
    groups = find_groups(network, SHAPE)
    dense = {group.name: group.width for group in groups}
    operators = list_operators(network, groups, SHAPE)
    assert [operator.module for operator in operators].count("conv1") == 2
    assert count_weights_at(operators, dense) == sum(p.numel() for name, p in network.named_parameters() if name.endswith("weight") and p.dim() > 1)


def test_reading_leaves_every_module_in_its_mode() -> None:
    network = hard_networks.Plain().train()
    network.bn1.eval()
    list_operators(network, (), SHAPE)
    assert (network.training, network.bn1.training, network.bn2.training) == (True, False, True)


def test_a_group_counts_the_products_on_it_and_no_activations() -> None:
    conv = Operator(module="a", operator=OperatorClass(op="conv"), inputs=(), fixed_inputs=3, outputs=(("a", 1),), fixed_outputs=0, full_widths=(("a", 4),))
    gelu = Operator(module="b", operator=OperatorClass(op="gelu"), inputs=(("a", 1),), fixed_inputs=0, outputs=(), fixed_outputs=0, full_widths=(("a", 4),))
    scores, options = {"a": [1.0] * 4}, {"a": (2, 4)}
    assert reciprocal_values(scores, options, [conv, gelu]) == reciprocal_values(scores, options, [conv])
