"""U-Net of Ronneberger et al., arXiv 1505.04597, with padding and BatchNorm.

Each level halves height and width and doubles the channels. On the way back the map is enlarged, narrowed by a 1x1 convolution
and concatenated with the map that the level had on the way down.
"""

import torch
from torch import nn
from torch.nn import functional


class UNet(nn.Module):
    """`depth` levels, of which the first has `width` channels, and a classifier for each pixel."""

    def __init__(self, *, in_channels: int, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_block(before, after) for before, after in zip([in_channels, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.narrow = nn.ModuleList(_layer(2 * after, after, 1) for after in reversed(widths[:-1]))
        self.up = nn.ModuleList(_block(2 * after, after) for after in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, in_channels, h, w) to scores (n, num_classes, h, w); h and w are at least 2 ** depth."""
        x, passed = self.down[0](x), list[torch.Tensor]()
        for block in self.down[1:]:
            passed.append(x)
            x = block(self.pool(x))
        for narrow, block in zip(self.narrow, self.up, strict=True):
            beside = passed.pop()
            x = functional.interpolate(narrow(x), size=beside.shape[2:], mode="nearest")
            x = block(torch.cat([beside, x], dim=1))
        found: torch.Tensor = self.head(x)
        return found


def _layer(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


def _block(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(_layer(in_channels, channels, 3), _layer(channels, channels, 3))


def unet(*, in_channels: int, num_classes: int, width: int = 32, depth: int = 2) -> UNet:
    """U-Net of `depth` levels; the paper's has `width` 64 and `depth` 4."""
    return UNet(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
