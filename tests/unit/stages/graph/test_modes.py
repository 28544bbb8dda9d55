"""A graph computes what its network computes, in evaluation and in training."""

import random

import hard_networks
import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.graph.following import follows
from bonsai.stages.graph.kinds import operation
from bonsai.stages.graph.modes import askers_of
from bonsai.stages.graph.trace import lost_in_training, trace

SHAPE = (3, 8, 8)
Plain = hard_networks.Plain


def within(module: nn.Module) -> nn.Module:
    """Return a network with a module of another class in its middle."""

    class Within(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def middle(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    return Within()


class OwnNorm(nn.Module):
    """A BatchNorm that derives from none of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(48)), nn.Parameter(torch.rand(48))
        self.register_buffer("running_mean", torch.zeros(48))
        self.register_buffer("running_var", torch.ones(48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 1e-5)


class ByHand(OwnNorm):
    """The same in plain arithmetic, which is another graph in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(var, 0.1)
        return (x - mean[:, None, None]) * torch.rsqrt(var + 1e-5)[:, None, None] * self.weight[:, None, None]


class WithActivation(nn.BatchNorm2d):
    def __init__(self) -> None:
        super().__init__(48)
        self.activation = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(super().forward(x))


class Path(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty(len(x), 1, 1, 1).bernoulli_(0.5) if self.training else x


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) if self.training else x


class Doubling(nn.Module):
    """Without anything random, around a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(48, 48, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + x if self.training else self.conv(x)


class Probability(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout2d(functional.dropout(x, 0.3 if self.training else 0.0), 0.2, self.training)


class NeverDrops(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.3, False)


class RandomSlope(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rrelu(x - 0.5, training=self.training)


class RarelySkipped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(48, 48, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training and random.random() < 1e-6 else x + self.conv(x)


@pytest.mark.parametrize("name", ["FunctionalDropout", "FusedNorm", "SharedConvolution", "Siamese", "Hooked"])
@pytest.mark.parametrize("training", [False, True])
def test_a_graph_is_right_in_both_modes_whatever_mode_it_was_traced_in(name: str, training: bool) -> None:
    torch.manual_seed(0)
    network = getattr(hard_networks, name)().train(training)
    traced = trace(network, SHAPE)
    assert lost_in_training(traced) is None
    assert traced.training is training
    images = torch.randn(4, *SHAPE)
    assert [follows(traced, network, images, training=mode) for mode in (False, True)] == [True, True]


@pytest.mark.parametrize("kind", [OwnNorm, ByHand, WithActivation, Path, Noise, Doubling, Probability, NeverDrops, RandomSlope])
def test_a_module_that_asks_for_its_mode_is_right_in_both(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = within(kind())
    traced = trace(network, SHAPE)
    images = torch.randn(4, *SHAPE)
    assert lost_in_training(traced) is None
    assert [follows(traced, network, images, training=mode) for mode in (False, True)] == [True, True]


@pytest.mark.parametrize("kind", [OwnNorm, WithActivation])
def test_a_norm_of_another_class_becomes_torchs_that_shares_its_statistics(kind: type[nn.Module]) -> None:
    network = within(kind())
    traced = trace(network, SHAPE)
    assert type(traced.get_submodule("inner")) is nn.BatchNorm2d
    traced.train()(torch.randn(4, *SHAPE))
    assert not torch.equal(network.get_buffer("inner.running_mean"), torch.zeros(48))


def test_a_module_that_does_nothing_in_evaluation_is_seen_through() -> None:
    traced = trace(within(Path()), SHAPE)
    (node,) = [node for node in traced.graph.nodes if node.target == "inner"]
    assert operation(traced, node) == "identity"


def test_a_new_norm_whose_output_is_its_input_is_not_seen_through() -> None:
    network = within(ByHand())
    nn.init.ones_(network.get_parameter("inner.weight"))
    traced = trace(network, SHAPE)
    (node,) = [node for node in traced.graph.nodes if node.target == "inner"]
    assert operation(traced, node) == "ByHand"


@pytest.mark.parametrize(("network", "by"), [(hard_networks.TrainingNoise(), "TrainingNoise"), (within(RarelySkipped()), "inner")])
def test_noise_that_a_graph_leaves_out_is_told_by_name(network: nn.Module, by: str) -> None:
    traced = trace(network, SHAPE)
    lost = lost_in_training(traced)
    assert lost is not None
    assert (lost.by, lost.noise) == ((by,), True)
    assert follows(traced, network, torch.randn(2, *SHAPE), training=False)


def test_what_else_differs_in_training_is_no_noise() -> None:
    class Scales(Plain):
        def middle(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if self.training else x

    lost = lost_in_training(trace(Scales(), SHAPE))
    assert lost is not None
    assert (lost.by, lost.noise) == (("Scales",), False)


def test_who_asks_for_the_mode_is_found_by_name_and_input() -> None:
    network = within(Path())
    asked = askers_of(network, torch.randn(2, *SHAPE))
    assert list(asked) == ["inner"]
    assert asked["inner"] is not None and asked["inner"].shape == (2, 48, 8, 8)
    assert "training" not in vars(nn.Module)


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("name", ["conv2", "inner", "inner.0"])
def test_hooks_act_wherever_they_are(hook: str, name: str) -> None:
    torch.manual_seed(0)
    network = within(nn.Sequential(nn.Conv2d(48, 48, 1), nn.ReLU()))
    change = {"register_forward_hook": lambda m, inputs, output: output.roll(1, 1), "register_forward_pre_hook": lambda m, inputs: (inputs[0] * 2,)}
    getattr(network.get_submodule(name), hook)(change[hook])
    traced = trace(network, SHAPE)
    assert follows(traced, network, torch.randn(2, *SHAPE), training=True)
    assert name in [node.target for node in traced.graph.nodes]
