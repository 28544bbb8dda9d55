"""The operators of real networks do the work of the network that is really cut, at random widths."""

import copy
import random

import pytest
import torch

from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import first_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.operator_records import count_macs_at
from bonsai.stages.selection.operators import read_operators

pytestmark = pytest.mark.slow  # large networks

SHAPE = (3, 64, 64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm/regnety_004", {}),
        ("timm/mixnet_s", {}),
        ("timm/ghostnet_050", {}),
        ("timm/vit_tiny_patch16_224", {"img_size": 64}),
        ("torchvision/shufflenet_v2_x0_5", {}),
        ("timm/swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4}),
        ("timm/mobilevit_xxs", {}),
        ("torchvision/resnet18", {}),
    ],
)
def test_predicted_work_is_counted_work(name: str, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = build_network(ModelConfig(name=name, options=options), SHAPE, 10).eval()
    groups = find_groups(network, SHAPE)
    operators, unseen = read_operators(network, groups, SHAPE)
    assert unseen == ()
    assert count_macs_at(operators, {group.name: group.width for group in groups}) == count_macs(network, SHAPE)
    rng = random.Random(0)
    for _ in range(3):
        widths = {group.name: rng.randint(1, group.width) for group in groups}
        narrowed = copy.deepcopy(network)
        cut(narrowed, groups, first_channels(widths))
        assert count_macs_at(operators, widths) == count_macs(narrowed, SHAPE)
