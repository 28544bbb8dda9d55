import pytest
import torch

from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "densenet121"])
def test_torchvision_networks_take_images_of_any_channels(name: str, channels: int) -> None:
    network = build_network(ModelConfig(name=name), (channels, 64, 64), 7).eval()
    assert network(torch.zeros(2, channels, 64, 64)).shape == (2, 7)
