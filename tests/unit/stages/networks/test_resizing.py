"""A network that cannot take smaller images is refused, and the layer where it stops is named."""

from typing import Any

import pytest
import torch
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.resizing import require_resizable
from bonsai.stages.networks.timm_models import make

FULL, SMALLER = (3, 16, 16), (3, 12, 12)


class Flat(nn.Module):
    """A classifier over all places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(4 * 8 * 8, 5))

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.stem(x))


class Reshaped(Flat):
    """The same, by sizes that its own forward knows."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.stem[:2](x).reshape(len(x), 4 * 8 * 8))


class Dense(nn.Module):
    """A score for every place."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.convolution(x).flatten(1)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Flat, r"it stops in head\.0: .*mat1 and mat2"),
        (Reshaped, "it stops in its own forward: .*shape"),
        (Dense, r"outputs \(2, 576\), and \(2, 1024\)"),
        (lambda: make("vit_tiny_patch16_224", in_channels=3, num_classes=5, img_size=16, patch_size=4, depth=1), "it stops in patch_embed: .*doesn't match"),
    ],
)
def test_a_network_for_one_size_is_refused(network: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)prune\.resolutions: the network cannot take images of 12x12.*{told}"):
        require_resizable(network(), FULL, SMALLER)


def test_a_network_with_global_pooling_is_not_refused_and_stays_as_it_was() -> None:
    network = resnet8(in_channels=3, num_classes=5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    require_resizable(network, FULL, SMALLER)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
