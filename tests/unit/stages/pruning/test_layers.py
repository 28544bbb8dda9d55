import pytest
import torch
from torch import nn

from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.layers import Layer, by_output, num_outputs
from bonsai.stages.pruning.scores import WEIGHT_CRITERIA, weight_scores
from bonsai.stages.pruning.statistics import BatchStatistics

LAYERS = {
    "linear": nn.Linear(8, 12, bias=False),
    "conv": nn.Conv2d(8, 12, 3, bias=False),
    "grouped": nn.Conv2d(8, 12, 3, groups=4, bias=False),
    "depthwise": nn.Conv2d(8, 8, 3, groups=8, bias=False),
    "depthwise with a multiplier": nn.Conv2d(8, 16, 3, groups=8, bias=False),
    "conv1d": nn.Conv1d(8, 12, 3, bias=False),
    "transposed": nn.ConvTranspose2d(8, 12, 3, bias=False),
    "grouped transposed": nn.ConvTranspose2d(8, 12, 3, groups=4, bias=False),
    "depthwise transposed": nn.ConvTranspose2d(8, 8, 3, groups=8, bias=False),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_only_its_own_weights_move_an_output_channel(layer: Layer) -> None:
    images = torch.rand(2, 8, *[5] * (layer.weight.ndim - 2)) + 0.1
    outputs = layer(images)
    assert num_outputs(layer) == outputs.shape[1]
    for channel in range(outputs.shape[1]):
        layer.zero_grad()
        outputs[:, channel].sum().backward(retain_graph=True)
        moved = by_output(layer, layer.weight.grad).ne(0).any(1)
        assert moved.nonzero().flatten().tolist() == [channel]


def decoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ConvTranspose2d(6, 10, 2, stride=2), nn.BatchNorm2d(10), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3)
    )


def test_the_scores_of_a_transposed_convolution_are_those_of_its_output_channels() -> None:
    network = decoder()
    groups = find_groups(network, (1, 8, 8))
    assert {g.name: g.width for g in groups} == {"0": 6, "1": 10}
    expected = network[1].weight.square().sum((0, 2, 3)).sqrt()
    torch.testing.assert_close(weight_scores(network, groups)["magnitude_l2"]["1"], expected.detach())
    statistics = BatchStatistics(network, groups, window=1)
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    statistics.observe()
    torch.testing.assert_close(statistics.scores()["snip"]["1"], (network[1].weight * network[1].weight.grad).abs().sum((0, 2, 3)).detach())


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_a_layer_that_produces_some_of_a_groups_channels_counts_for_those(criterion: str) -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.left, self.right, self.head = nn.Conv2d(1, 5, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            joined = self.whole(x) + torch.cat([self.left(x), self.right(x)], 1)
            return self.head(joined.mean((2, 3)))

    network = Joined()
    groups = find_groups(network, (1, 4, 4))
    assert [(group.name, group.width) for group in groups] == [("whole[0]", 2), ("whole[2]", 3)]
    scores = weight_scores(network, groups)
    assert [scores[criterion][group.name].shape for group in groups] == [(2,), (3,)]
    parts = (torch.cat([network.left.weight, network.right.weight]).square() + network.whole.weight.square()).sqrt()
    torch.testing.assert_close(torch.cat([scores["magnitude_l2"][group.name] for group in groups]), parts.flatten().detach())
