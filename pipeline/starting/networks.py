"""The networks that `bonsai init` writes for those who have none, as text."""

CLASSIFIER = '''"""A small residual network to start from. Replace it with yours: `build` is called with the images' channels and the number of classes."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.skip = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.skip(x))


class Net(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def build(in_channels: int, num_classes: int, width: int = 32) -> nn.Module:
    return Net(in_channels, num_classes, width)
'''

SEGMENTER = '''"""A small U-Net to start from. Replace it with yours: `build` is called with the images' channels and the number of classes."""

import torch
from torch import nn
from torch.nn import functional


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(in_channels, width), layer(width, width))
        self.down = nn.Sequential(layer(width, 2 * width), layer(2 * width, 2 * width))
        self.middle = nn.Sequential(layer(2 * width, 4 * width), layer(4 * width, 2 * width))
        self.up = nn.Sequential(layer(4 * width, 2 * width), layer(2 * width, width))
        self.end = layer(2 * width, width)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.stem(x)
        coarse = self.down(self.pool(fine))
        x = self.up(joined(coarse, self.middle(self.pool(coarse))))
        return self.head(self.end(joined(fine, x)))


def joined(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    return torch.cat([fine, functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")], 1)


def build(in_channels: int, num_classes: int, width: int = 32) -> nn.Module:
    return Net(in_channels, num_classes, width)
'''
NETWORKS = {"classification": CLASSIFIER, "segmentation": SEGMENTER}
"""By task."""
