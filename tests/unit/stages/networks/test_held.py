"""A network that a program holds is known by what it computes, whatever its weights."""

import copy

import pytest
import torch
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.held import hold, structure_of
from bonsai.stages.networks.registry import build_network
from bonsai.stages.networks.several_outputs import select_outputs
from bonsai.stages.store.artifact import fingerprint

SHAPE = (1, 16, 16)


class Scaled(nn.Module):
    """A convolution, and a number that no parameter holds."""

    def __init__(self, factor: float = 2.0, padding: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=padding), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean((2, 3)) * self.factor


def test_what_is_built_has_the_structure_and_weights_of_its_own() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    config = hold(network)
    built, again = (build_network(config, SHAPE, 0) for _ in range(2))
    assert structure_of(built) == structure_of(network)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in built.state_dict().items())
    assert not torch.equal(built.conv1.weight, network.conv1.weight)
    assert build_network(config, SHAPE, 0, seed=1).conv1.weight.std() > 0


def test_neither_weights_nor_training_change_the_identity() -> None:
    network = Scaled()
    before = hold(network)
    other = copy.deepcopy(network).eval()
    nn.init.normal_(other.conv.weight)
    other.norm(torch.randn(8, 4, 3, 3))
    assert hold(other) == before
    assert fingerprint(hold(other)) == fingerprint(before)
    network.conv.weight.requires_grad_(False)
    assert hold(network) == before


@pytest.mark.parametrize("other", [Scaled(factor=3.0), Scaled(padding=0), nn.Sequential(Scaled())], ids=["number", "padding", "name"])
def test_what_is_computed_changes_the_identity(other: nn.Module) -> None:
    assert hold(other) != hold(Scaled())


def test_another_process_is_told_why_it_cannot_build_it() -> None:
    with pytest.raises(ConfigError, match="was held by a program, which alone can build it"):
        build_network(ModelConfig(name="held/0123456789abcdef"), SHAPE, 0)


def test_other_outputs_of_one_network_are_another_network() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 4), nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.one(x), self.other(x)

    configs = [hold(select_outputs(Two(), names)) for names in (("0",), ("1",))]
    assert configs[0] != configs[1]
    assert [build_network(config, (3,), 0)(torch.zeros(2, 3)).shape[1] for config in configs] == [4, 5]
