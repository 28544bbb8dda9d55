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


def joined(x: torch.Tensor, whole: nn.Module, left: nn.Module, right: nn.Module) -> torch.Tensor:
    return whole(x) + torch.cat([left(x), right(x)], 1)


class C2f(nn.Module):
    """The block of YOLOv8's neck: halves of a layer go on side by side, one of them through a residual branch, and are joined again."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.two, self.last = conv(inputs, outputs), conv(outputs // 2, outputs // 2), conv(outputs * 3 // 2, outputs)
        self.norm = nn.BatchNorm2d(outputs // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.one(x).chunk(2, 1))
        parts.append(parts[-1] + torch.relu(self.norm(self.two(parts[-1]))))
        return self.last(torch.cat(parts, 1))


class Heads(nn.Module):
    """Attention over the pixels, written as timm does it: the number of heads and the width of them all are attributes."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = num_heads, 6, 6 * num_heads
        self.qkv, self.proj = nn.Linear(channels, 3 * self.attn_dim), nn.Linear(self.attn_dim, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(len(x), -1, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), -1, self.attn_dim)
        return (tokens + self.proj(found)).transpose(1, 2).unflatten(2, x.shape[2:])


class Levels(nn.Module):
    """A convolution whose pixels are listed, with tensors among its attributes that are no sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.width = conv(8, 6), 6
        self.strides, self.anchors = torch.tensor([8.0, 16.0]), [torch.zeros(6), torch.zeros(2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).view(len(x), self.width, -1).unflatten(2, x.shape[2:])


CUT = {  # network, groups that can be cut
    "residual": (lambda: resnet8(in_channels=3, num_classes=5), 6),
    "depthwise": (lambda: Net(8, nn.Sequential(conv(8, 8, 8), nn.BatchNorm2d(8), conv(8, 12)), 12), 2),
    "transposed": (lambda: Net(8, nn.Sequential(transposed(8, 12), nn.ReLU(), transposed(12, 6)), 6), 3),
    "depthwise transposed": (lambda: Net(8, nn.Sequential(transposed(8, 8, 8), nn.ReLU(), conv(8, 6)), 6), 2),
    "concatenation": (lambda: Net(8, Call(lambda x, a, b: torch.cat([a(x), x, b(x)], 1), conv(8, 4), conv(8, 12)), 24), 3),
    "gate": (lambda: Net(8, Call(lambda x, a, b: b(x) * torch.sigmoid(a(x.mean((2, 3), keepdim=True))), nn.Conv2d(8, 6, 1), conv(8, 6)), 6), 2),
    "shared layer": (lambda: Net(8, Call(lambda x, a: a(torch.relu(a(x))), conv(8, 8)), 8), 1),
    "per channel": (lambda: Net(8, nn.Sequential(nn.PReLU(8), nn.BatchNorm2d(8, affine=False)), 8), 1),
    "2 groups": (lambda: Net(8, conv(8, 16, 2), 16), 2),
    "4 groups": (lambda: Net(8, nn.Sequential(conv(8, 16, 4), nn.ReLU(), conv(16, 8)), 8), 2),
    "2 groups then 4": (lambda: Net(8, nn.Sequential(conv(8, 16, 2), nn.ReLU(), conv(16, 8, 4)), 8), 2),
    "multiplier": (lambda: Net(8, conv(8, 16, 8), 16), 1),
    "grouped transposed": (lambda: Net(8, transposed(8, 12, 2), 12), 2),
    "PixelShuffle": (lambda: Net(16, nn.Sequential(nn.PixelShuffle(2), conv(4, 6)), 6), 2),
    "PixelUnshuffle": (lambda: Net(4, nn.Sequential(nn.PixelUnshuffle(2), conv(16, 6)), 6), 2),
    "ChannelShuffle": (lambda: Net(8, nn.Sequential(nn.ChannelShuffle(2), conv(8, 6)), 6), 2),
    "tensors as attributes": (lambda: Net(8, Levels(), 6), 2),
    "halves": (lambda: Net(8, Call(halves), 4), 1),
    "partial sum": (lambda: Net(8, Call(joined, conv(8, 10), conv(8, 4), conv(8, 6)), 10), 3),
    "GroupNorm": (lambda: Net(8, nn.GroupNorm(2, 8), 8), 1),
    "one GroupNorm": (lambda: Net(8, nn.GroupNorm(1, 8), 8), 1),
    "LayerNorm": (lambda: Net(8, Call(lambda x, norm, a: a(norm(x.movedim(1, -1)).movedim(-1, 1)), nn.LayerNorm(8), conv(8, 6)), 6), 2),
    "shared weight": (lambda: Net(8, Tied(), 8), 1),
    "weight norm": (lambda: Net(8, weight_norm(conv(8, 6)), 6), 2),
    "C2f": (lambda: Net(8, C2f(8, 12), 12), 3),
    "heads": (lambda: Net(8, Heads(8, 4), 8), 2),
}
REFUSED = {  # network, groups that are refused
    "view(-1, const)": (lambda: Net(8, Call(lambda x: x.reshape(-1, 8, 256).unsqueeze(3)), 8), ["first"]),
    "view(-1, flat)": (lambda: nn.Sequential(conv(3, 8), nn.AdaptiveAvgPool2d(2), Call(lambda x: x.reshape(-1, 32)), nn.Linear(32, 5)), ["0"]),
    "slice": (lambda: Net(8, Call(lambda x: x[:, :4]), 4), ["first"]),
    "pairs": (lambda: Net(8, nn.Sequential(Call(lambda x: x.unflatten(1, (4, 2)).amax(2)), conv(4, 6)), 6), ["first"]),
    "attention": (lambda: Net(8, Attention(8), 8), ["first", "middle.attention.out_proj"]),
    "channel mean": (lambda: Net(8, Call(lambda x: x - x.mean(1, keepdim=True)), 8), ["first"]),
    "softmax": (lambda: Net(8, nn.Softmax(1), 8), ["first"]),
    "roll as one row": (lambda: Net(8, Call(lambda x: x.roll(3)), 8), ["first"]),
    "crop": (lambda: Net(8, nn.Sequential(Call(lambda x: nn.functional.pad(x, (-1, 1, 0, 0, 0, -2))), conv(6, 6)), 6), ["first"]),
}
