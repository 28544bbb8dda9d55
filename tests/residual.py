"""Small networks with residual blocks: some may be left out as a whole, others may not."""

import torch
from torch import nn

from bonsai.stages.networks.cifar_resnet import resnet8, resnet20

SHAPE = (3, 16, 16)


class Bottleneck(nn.Module):
    """Three convolutions beside a skip connection, with or without an activation after the addition."""

    def __init__(self, channels: int, inner: int, last: nn.Module) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.ReLU()]
        self.branch, self.last = nn.Sequential(*layers, nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels)), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x + self.branch(x))


class Bottlenecks(nn.Module):
    """Blocks of three convolutions; of the last two one ends in GELU, which changes its input, and one runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.first, self.second = Bottleneck(16, 12, nn.ReLU()), Bottleneck(16, 8, nn.ReLU())
        self.bent, self.twice, self.head = Bottleneck(16, 8, nn.GELU()), Bottleneck(16, 8, nn.Identity()), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bent(self.second(self.first(self.stem(x))))
        return self.head(self.twice(self.twice(x)).mean((2, 3)))


class Tokens(nn.Module):
    """A transformer's block: attention and two linear layers, each behind a LayerNorm and beside a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).reshape(x.shape[0], x.shape[1], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.proj(mixed)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Two such blocks on patches of 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 4, stride=4)
        self.blocks, self.norm, self.head = nn.Sequential(Tokens(24, 3), Tokens(24, 3)), nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


class Captured(Bottlenecks):
    """The same without the last two blocks; the path that it takes depends on the size of the images, so that torch.export alone can follow it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.second(self.first(self.stem(x)))
        return self.head((x if x.shape[2] > 4 else x[:, :, ::2]).mean((2, 3)))


NETWORKS = {
    "resnet8": lambda: resnet8(width=8, in_channels=3, num_classes=5),
    "resnet20": lambda: resnet20(width=8, in_channels=3, num_classes=5),
    "bottlenecks": Bottlenecks,
    "captured": Captured,
    "transformer": Transformer,
}
BLOCKS = {
    "resnet8": {"layer1.0": ("layer1.0.conv1",)},
    "resnet20": {f"layer{stage}.{place}": (f"layer{stage}.{place}.conv1",) for stage in (1, 2, 3) for place in range(3) if stage == 1 or place},
    "bottlenecks": {name: (f"{name}.branch.0", f"{name}.branch.3") for name in ("first", "second")},
    "captured": {name: (f"{name}.branch.0", f"{name}.branch.3") for name in ("first", "second")},
    "transformer": {f"blocks.{place}": (f"blocks.{place}.qkv", f"blocks.{place}.up") for place in (0, 1)},
}
"""Blocks that may be left out, with the groups inside of them."""
