"""Small problems of every task, drawn as needed, and networks for them: recipes name both."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.data.registry import LoadedImages

IMAGES = 320
IGNORED = 255


def _patches(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return noisy images (n, 3, size, size) uint8 with up to three squares, one in each channel, whether they are there, and where (n, 3, 2)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 90, (IMAGES, 3, size, size), generator=generator, dtype=torch.uint8)
    there = torch.rand(IMAGES, 3, generator=generator) < torch.tensor([0.5, 0.4, 0.3])
    corners = torch.randint(0, size - size // 3 + 1, (IMAGES, 3, 2), generator=generator)
    for number, channel in there.nonzero().tolist():
        row, column = corners[number, channel].tolist()
        images[number, channel, row : row + size // 3, column : column + size // 3] = 220
    return images, there, corners


def load_tags(size: int) -> LoadedImages:
    """Return images, and which of three squares each has."""
    images, there, _ = _patches(size, 0)
    return LoadedImages(images, there.float(), ("red", "green", "blue"), "drawn")


def load_places(size: int) -> LoadedImages:
    """Return images, and the place of one square, as shares of the side."""
    images, there, corners = _patches(size, 1)
    images[~there[:, 0], 0] = 0
    for number in (~there[:, 0]).nonzero().flatten().tolist():
        row, column = corners[number, 0].tolist()
        images[number, 0, row : row + size // 3, column : column + size // 3] = 220
    return LoadedImages(images, corners[:, 0] / (size - size // 3), ("row", "column"), "drawn")


def load_masks(size: int) -> LoadedImages:
    """Return images, and masks of two squares, the second over the first; the margin does not count."""
    images, there, corners = _patches(size, 2)
    masks = torch.zeros(IMAGES, size, size, dtype=torch.uint8)
    for channel in (0, 1):
        for number in there[:, channel].nonzero().flatten().tolist():
            row, column = corners[number, channel].tolist()
            masks[number, row : row + size // 3, column : column + size // 3] = channel + 1
    masks[:, 0] = IGNORED
    return LoadedImages(images, masks, ("background", "red", "green"), "drawn")


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Trunk(nn.Module):
    """Three convolutions, their mean or their whole map, and a linear layer."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 32, whole: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(_layer(in_channels, width), _layer(width, width, 2), _layer(width, width, 2))
        self.pool = nn.AdaptiveMaxPool2d(4 if whole else 1)
        self.fc = nn.Linear(width * (16 if whole else 1), num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.body(x)).flatten(1))  # type: ignore[no-any-return]


class Patches(nn.Module):
    """Sees large images in patches, so that they cost little."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(in_channels, 64, 16, 16), nn.BatchNorm2d(64), nn.ReLU())
        self.body = _layer(64, 64, 2)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.patches(x)).mean((2, 3)))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Two levels with a skip; in a dict, with an auxiliary output as torchvision's networks have it."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.first, self.second = _layer(in_channels, width), _layer(width, 2 * width, 2)
        self.third = _layer(2 * width, width)
        self.last, self.out = _layer(2 * width, width), nn.Conv2d(width, num_classes, 1)
        self.aux = nn.Sequential(_layer(2 * width, width), nn.Conv2d(width, num_classes, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.first(x)
        coarse = self.second(fine)
        up = functional.interpolate(self.third(coarse), scale_factor=2.0, mode="nearest")
        found = OrderedDict(out=self.out(self.last(torch.cat([fine, up], 1))))
        found["aux"] = functional.interpolate(self.aux(coarse), scale_factor=2.0, mode="nearest")
        return found
