"""Small networks around one layer each: those that the surgery can cut, and those that it must refuse."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from bonsai.stages.networks.cifar_resnet import resnet8

SHAPE = (3, 16, 16)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def transposed(inputs: int, outputs: int, groups: int = 1) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, groups=groups)


class Net(nn.Module):
    """Convolution, whatever is tested, and a classifier of the mean over the pixels."""

    def __init__(self, channels: int, middle: nn.Module, last: int) -> None:
        super().__init__()
        self.first, self.middle, self.head = conv(3, channels), middle, nn.Linear(last, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(torch.relu(self.first(x))).mean((2, 3)))


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.layers)


class Attention(nn.Module):
    """Attention over the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        return self.attention(pixels, pixels, pixels, need_weights=False)[0].transpose(1, 2).unflatten(2, x.shape[2:])


class Tied(nn.Sequential):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__(conv(8, 8), conv(8, 8))
        self[1].weight = self[0].weight


def halves(x: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, 1)
    return left * torch.sigmoid(right)


CUT = {  # network, groups that can be cut
    "residual": (lambda: resnet8(in_channels=3, num_classes=5), 6),
    "depthwise": (lambda: Net(8, nn.Sequential(conv(8, 8, 8), nn.BatchNorm2d(8), conv(8, 12)), 12), 2),
    "transposed": (lambda: Net(8, nn.Sequential(transposed(8, 12), nn.ReLU(), transposed(12, 6)), 6), 3),
    "depthwise transposed": (lambda: Net(8, nn.Sequential(transposed(8, 8, 8), nn.ReLU(), conv(8, 6)), 6), 2),
    "concatenation": (lambda: Net(8, Call(lambda x, a, b: torch.cat([a(x), x, b(x)], 1), conv(8, 4), conv(8, 12)), 24), 3),
    "gate": (lambda: Net(8, Call(lambda x, a, b: b(x) * torch.sigmoid(a(x.mean((2, 3), keepdim=True))), nn.Conv2d(8, 6, 1), conv(8, 6)), 6), 2),
    "shared layer": (lambda: Net(8, Call(lambda x, a: a(torch.relu(a(x))), conv(8, 8)), 8), 1),
    "per channel": (lambda: Net(8, nn.Sequential(nn.PReLU(8), nn.BatchNorm2d(8, affine=False)), 8), 1),
}
REFUSED = {  # network, groups that are refused
    "2 groups": (lambda: Net(8, conv(8, 16, 2), 16), ["first", "middle"]),
    "4 groups": (lambda: Net(8, nn.Sequential(conv(8, 16, 4), nn.ReLU(), conv(16, 8)), 8), ["first", "middle.0"]),
    "2 groups then 4": (lambda: Net(8, nn.Sequential(conv(8, 16, 2), nn.ReLU(), conv(16, 8, 4)), 8), ["first", "middle.0", "middle.2"]),
    "multiplier": (lambda: Net(8, conv(8, 16, 8), 16), ["first", "middle"]),
    "grouped transposed": (lambda: Net(8, transposed(8, 12, 2), 12), ["first", "middle"]),
    "PixelShuffle": (lambda: Net(16, nn.Sequential(nn.PixelShuffle(2), conv(4, 6)), 6), ["first"]),
    "PixelUnshuffle": (lambda: Net(4, nn.Sequential(nn.PixelUnshuffle(2), conv(16, 6)), 6), ["first"]),
    "ChannelShuffle": (lambda: Net(8, nn.Sequential(nn.ChannelShuffle(2), conv(8, 6)), 6), ["first"]),
    "view(-1, const)": (lambda: Net(8, Call(lambda x: x.reshape(-1, 8, 256).unsqueeze(3)), 8), ["first"]),
    "view(-1, flat)": (lambda: nn.Sequential(conv(3, 8), nn.AdaptiveAvgPool2d(2), Call(lambda x: x.reshape(-1, 32)), nn.Linear(32, 5)), ["0"]),
    "halves": (lambda: Net(8, Call(halves), 4), ["first"]),
    "slice": (lambda: Net(8, Call(lambda x: x[:, :4]), 4), ["first"]),
    "pairs": (lambda: Net(8, nn.Sequential(Call(lambda x: x.unflatten(1, (4, 2)).amax(2)), conv(4, 6)), 6), ["first"]),
    "GroupNorm": (lambda: Net(8, nn.GroupNorm(2, 8), 8), ["first"]),
    "attention": (lambda: Net(8, Attention(8), 8), ["first"]),
    "shared weight": (lambda: Net(8, Tied(), 8), ["first", "middle.0", "middle.1"]),
    "weight norm": (lambda: Net(8, weight_norm(conv(8, 6)), 6), ["first", "middle"]),
}
