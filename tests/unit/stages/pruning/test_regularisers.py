from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.pruning.config import CEILING, RegulariserConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group, Member
from bonsai.stages.pruning.regularisers import Coupling, GrowingL2, Regulariser, make_regulariser

SHAPE = (2, 6, 6)
Channels = list[list[torch.Tensor]]
"""What belongs to each channel, written out by hand."""


def head(channels: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


class Residual(nn.Module):
    """x + bn(conv(x)): the convolution's inputs and outputs are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.bn, self.fc = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.fc((x + self.bn(self.conv(x))).mean((2, 3)))


class Concatenated(nn.Module):
    """Two groups meet in one BatchNorm and one consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bn, self.fc = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 5, 1), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3)))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), *head(3))


def of_plain(n: Any) -> Channels:
    first = [[n[0].weight[c], n[0].bias[c], n[1].weight[c], n[1].bias[c], n[3].weight[:, c]] for c in range(4)]
    return first + [[n[3].weight[c], n[3].bias[c], n[7].weight[:, c]] for c in range(3)]


def of_residual(n: Any) -> Channels:
    return [[n.stem.weight[c], n.stem.bias[c], n.conv.weight[c], n.conv.weight[:, c], n.bn.weight[c], n.bn.bias[c], n.fc.weight[:, c]] for c in range(4)]


def of_concatenated(n: Any) -> Channels:
    sources = [(n.a, c, c) for c in range(3)] + [(n.b, c, 3 + c) for c in range(5)]
    return [[conv.weight[c], conv.bias[c], n.bn.weight[at], n.bn.bias[at], n.fc.weight[:, at]] for conv, c, at in sources]


def depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), *head(4))


def of_depthwise(n: Any) -> Channels:
    return [[n[0].weight[c], n[0].bias[c], n[1].weight[c], n[2].weight[c], n[2].bias[c], n[6].weight[:, c]] for c in range(4)]


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 6, 3, groups=2), *head(6))


def of_grouped(n: Any) -> Channels:
    rows = [slice(3 * c, 3 * c + 3) for c in range(2)]
    return [[n[0].weight[2 * c : 2 * c + 2], n[1].weight[row], n[1].bias[row], n[5].weight[:, row]] for c, row in enumerate(rows)]


def transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6), *head(6))


def of_transposed(n: Any) -> Channels:
    first = [[n[0].weight[c], n[1].weight[c]] for c in range(4)]
    return first + [[n[1].weight[:, c], n[1].bias[c], n[2].weight[c], n[2].bias[c], n[6].weight[:, c]] for c in range(6)]


def flattened() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5), nn.Linear(5, 3))


def of_flattened(n: Any) -> Channels:
    first = [[n[0].weight[c], n[0].bias[c], n[3].weight[:, 4 * c : 4 * c + 4]] for c in range(4)]
    return first + [[n[3].weight[c], n[3].bias[c], n[4].weight[c], n[4].bias[c], n[5].weight[:, c]] for c in range(5)]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Channels]]] = {
    "plain": (plain, of_plain),
    "residual": (Residual, of_residual),
    "concatenated": (Concatenated, of_concatenated),
    "depthwise": (depthwise, of_depthwise),
    "grouped": (grouped, of_grouped),
    "transposed": (transposed, of_transposed),
    "flattened": (flattened, of_flattened),
}


def lasso(channels: Channels) -> torch.Tensor:
    sizes = [sum(w.numel() for w in parts) for parts in channels]
    return 0.1 * sum(size**0.5 * torch.cat([w.flatten() for w in parts]).norm() for size, parts in zip(sizes, channels, strict=True))


def half_squares(channels: Channels) -> torch.Tensor:
    return 0.1 / 2 * sum(w.square().sum() for parts in channels for w in parts)


PENALTIES = {"group_lasso": lasso, "growing": half_squares}


def configured(name: str, strength: float = 0.1, *, growth: float = 0.01, every: int = 1) -> RegulariserConfig:
    return RegulariserConfig(name=name, strength=strength, **({"growth": growth, "every": every} if name == "growing" else {}))


def made(name: str, network: nn.Module, shape: tuple[int, int, int] = SHAPE, **settings: Any) -> Regulariser:
    regulariser = make_regulariser(configured(name, **settings), network, find_groups(network, shape))
    assert regulariser is not None
    return regulariser


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return network


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def added(network: nn.Module, regulariser: Regulariser) -> dict[str, torch.Tensor]:
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    regulariser.add()
    return gradients(network)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_added_is_the_gradient_of_the_penalty(name: str, penalty: str) -> None:
    make, written_out = NETWORKS[name]
    network = randomised(make())
    before = gradients(network)
    expected = torch.autograd.grad(PENALTIES[penalty](written_out(network)), list(network.parameters()), allow_unused=True)
    made(penalty, network).add()
    for (key, parameter), gradient in zip(network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, before[key] + (0 if gradient is None else gradient), msg=key)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.data())
@settings(deadline=None, max_examples=50)
def test_the_weights_that_consume_a_channel_are_those_that_it_reaches(blocks: int, ins: int, outs: int, turned: bool, data: st.DataObject) -> None:
    conv = (nn.ConvTranspose2d if turned else nn.Conv2d)(blocks * ins, blocks * outs, 2, groups=blocks)
    channel = data.draw(st.integers(0, blocks * ins - 1))
    images = torch.zeros(1, blocks * ins, 3, 3)
    images[:, channel] = 1
    conv(images).sum().backward()
    reached = conv.weight.grad != 0
    conv.weight.data.fill_(1)
    conv.zero_grad(set_to_none=False)
    everywhere = tuple(range(blocks * ins))
    coupling = Coupling(conv, (Group(name="", width=blocks * ins, members=(Member(module="", side="in", indices=everywhere, channels=everywhere),)),))
    coupling.shrink(functional.one_hot(torch.tensor(channel), blocks * ins).float())
    assert torch.equal(conv.weight.grad != 0, reached)
    assert coupling.sizes[channel] == reached.sum()


@given(st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=20)
def test_group_lasso_adds_gradients_of_the_same_size_whatever_the_weights(scale: float) -> None:
    network = randomised(depthwise())
    for parameter in network.parameters():
        parameter.data *= scale
    regulariser = made("group_lasso", network, strength=0.01)
    network.load_state_dict(added(network, regulariser), strict=False)
    for gradient in of_depthwise(network):
        assert torch.cat([g.flatten() for g in gradient]).square().mean().sqrt().item() == pytest.approx(0.01, rel=1e-4)


def test_group_lasso_leaves_a_channel_of_norm_zero_alone() -> None:
    network = randomised(depthwise())
    with torch.no_grad():
        for parameter in of_depthwise(network)[1]:
            parameter.zero_()
    network.load_state_dict(added(network, made("group_lasso", network)), strict=False)
    assert [any(g.any() for g in gradient) for gradient in of_depthwise(network)] == [True, False, True, True]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30])
@pytest.mark.parametrize("name", NETWORKS)
def test_equal_weights_give_finite_gradients(name: str, value: float, penalty: str) -> None:
    network = NETWORKS[name][0]()
    for parameter in network.parameters():
        parameter.data.fill_(value)
    regulariser = made(penalty, network)
    for _ in range(3):
        gradient = added(network, regulariser)
    for vector in [*gradient.values(), *regulariser.state().values()]:
        assert torch.isfinite(vector).all()


def test_network_slimming_adds_the_sign_of_gamma_and_nothing_else() -> None:
    network = plain()
    network[1].weight.data = torch.tensor([0.5, -2.0, 0.0, 1e-9])
    gradient = added(network, made("bn_l1", network, strength=0.01))
    assert gradient.pop("1.weight").tolist() == pytest.approx([0.01, -0.01, 0, 0.01])
    assert not any(vector.any() for vector in gradient.values())


def test_network_slimming_reaches_every_gamma_of_a_shared_batchnorm() -> None:
    network = Concatenated()
    assert added(network, made("bn_l1", network))["bn.weight"].tolist() == pytest.approx([0.1] * 8)


@pytest.mark.parametrize("frozen", [False, True])
def test_network_slimming_is_refused_without_a_batchnorm(frozen: bool) -> None:
    network = plain() if frozen else grouped()
    for parameter in network.parameters():
        parameter.requires_grad_(not frozen)
    with pytest.raises(ConfigError, match=r"no normalisation with a trainable gamma\n.*\n.*use group_lasso or growing"):
        made("bn_l1", network)


def growing(weights: list[float], *, growth: float, every: int = 1) -> tuple[nn.Module, GrowingL2]:
    """Three channels of one weight each; the consumer is frozen and so belongs to none of them."""
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Flatten(), nn.Linear(3, 2))
    network[0].weight.data = torch.tensor(weights).reshape(3, 1, 1, 1)
    network[2].requires_grad_(False)
    regulariser = made("growing", network, (1, 1, 1), growth=growth, every=every)
    assert isinstance(regulariser, GrowingL2)
    return network, regulariser


def test_the_strength_grows_faster_for_less_important_channels() -> None:
    network, regulariser = growing([3.0, -1.0, 2.0], growth=0.02, every=2)
    expected = [[0.1, 0.1, 0.1]] * 2 + [[0.1, 0.12, 0.11]] * 2 + [[0.1, 0.14, 0.12]]
    for strengths in expected:
        gradient = added(network, regulariser)["0.weight"].flatten().tolist()
        assert gradient == pytest.approx([w * s for w, s in zip([3, -1, 2], strengths, strict=True)])


def test_equally_important_channels_grow_alike() -> None:
    _, regulariser = growing([1.0, -1.0, 1.0], growth=0.02)
    regulariser.add()
    assert regulariser.state()["strengths"].tolist() == pytest.approx([0.12] * 3)


def test_the_strength_stops_at_the_ceiling() -> None:
    _, regulariser = growing([3.0, 1.0, 2.0], growth=0.5)
    for _ in range(4):
        regulariser.add()
    assert regulariser.state()["strengths"].tolist() == pytest.approx([0.1, CEILING, CEILING])


@given(st.integers(0, 7), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_growing_goes_on_from_its_state(border: int, every: int) -> None:
    network = randomised(plain())
    whole, first, second = (made("growing", network, every=every) for _ in range(3))
    for step in range(8):
        if step == border:
            second.restore(first.state())
        expected = added(network, whole)
        found = added(network, first if step < border else second)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("penalty", ["group_lasso", "bn_l1"])
def test_a_penalty_of_the_weights_alone_has_no_state(penalty: str) -> None:
    regulariser = made(penalty, plain())
    assert regulariser.state() == {}
    regulariser.restore({})


@pytest.mark.parametrize("penalty", [*PENALTIES, "bn_l1"])
def test_parameters_without_a_gradient_are_passed_over(penalty: str) -> None:
    network = randomised(plain())
    network[3].weight.requires_grad_(False)
    network[3].weight.grad = network[1].weight.grad = None
    made(penalty, network).add()
    assert network[3].weight.grad is None
    assert network[1].weight.grad is None


def test_channels_last_weights_get_the_same_gradients() -> None:
    network, other = randomised(grouped()), randomised(grouped()).to(memory_format=torch.channels_last)
    expected, found = added(network, made("group_lasso", network)), added(other, made("group_lasso", other))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_none_is_no_regulariser() -> None:
    network = plain()
    assert make_regulariser(RegulariserConfig(), network, find_groups(network, SHAPE)) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "growing"}, "`growth` belongs to the regulariser `growing`: it needs one"),
        ({"name": "growing", "growth": 1e-4}, "`every` belongs to the regulariser `growing`: it needs one"),
        ({"name": "group_lasso", "every": 10}, "`every` belongs to the regulariser `growing`: not to `group_lasso`"),
        ({"name": "bn_l1", "strength": -1}, "greater than or equal to 0"),
        ({"name": "bn_l1", "strength": 2}, "less than or equal to 1"),
        ({"name": "lasso"}, "'none', 'group_lasso', 'bn_l1' or 'growing'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegulariserConfig(**keys)


def trained(penalty: str, strength: float) -> tuple[nn.Module, tuple[Group, ...], float]:
    """Train ResNet-8 on scikit-learn's digits for 80 steps; returns the mean loss of the last ten too."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float().reshape(-1, 1, 8, 8) / 16
    network = resnet8(in_channels=1, num_classes=10, width=8)
    groups = find_groups(network, (1, 8, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    regulariser = make_regulariser(configured(penalty, strength, growth=5e-3, every=5), network, groups)
    losses = []
    for step in range(80):
        rows = torch.arange(step * 64, step * 64 + 64) % len(labels)
        loss = functional.cross_entropy(network(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        if regulariser:
            regulariser.add()
        optimizer.step()
        losses.append(float(loss.detach()))
    return network, groups, sum(losses[-10:]) / 10


@pytest.fixture(scope="module")
def free() -> tuple[nn.Module, tuple[Group, ...], float]:
    return trained("none", 0)


@pytest.mark.parametrize(("penalty", "strength"), [("group_lasso", 2e-3), ("growing", 1e-3)])
def test_a_regularised_training_leaves_smaller_channels_and_still_learns(
    free: tuple[nn.Module, tuple[Group, ...], float], penalty: str, strength: float
) -> None:
    network, groups, loss = trained(penalty, strength)
    smallest = [float(Coupling(n, groups).norms().sort().values[:20].mean()) for n in (free[0], network)]
    assert smallest[1] < 0.4 * smallest[0]
    assert loss < 0.5


def test_group_lasso_repeats_bit_for_bit() -> None:
    first, second = (trained("group_lasso", 1e-3)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
