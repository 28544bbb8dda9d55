"""Residual networks in the CIFAR layout of He et al., arXiv 1512.03385, section 4.2, for images and for time series.

Three stages of basic blocks at full, half and quarter resolution; where the shape changes, the shortcut
is a convolution of one tap (option B).
"""

from typing import NamedTuple

import torch
from torch import nn


class Layers(NamedTuple):
    """What blocks are made of.

    Attributes:
        kernel: Side of the convolutions' kernels.
    """

    convolution: type[nn.Conv1d] | type[nn.Conv2d]
    batch_norm: type[nn.BatchNorm1d] | type[nn.BatchNorm2d]
    average: type[nn.AdaptiveAvgPool1d] | type[nn.AdaptiveAvgPool2d]
    kernel: int


IMAGES = Layers(nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d, kernel=3)
SERIES = Layers(nn.Conv1d, nn.BatchNorm1d, nn.AdaptiveAvgPool1d, kernel=5)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        kernel, padding = layers.kernel, layers.kernel // 2
        self.conv1 = layers.convolution(in_channels, channels, kernel, stride, padding=padding, bias=False)
        self.bn1 = layers.batch_norm(channels)
        self.relu = nn.ReLU()
        self.conv2 = layers.convolution(channels, channels, kernel, padding=padding, bias=False)
        self.bn2 = layers.batch_norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(layers.convolution(in_channels, channels, 1, stride, bias=False), layers.batch_norm(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, h, w) to (n, channels, h / stride, w / stride), or (n, in_channels, t) to (n, channels, t / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: torch.Tensor = self.relu(y + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """Stem, three stages of `depth` blocks at `width`, 2x and 4x `width` channels, average over all places, classifier.

    Args:
        in_channels: Channels of the input.
        num_classes: Scores.
        depth: Blocks of a stage.
        width: Channels of the first stage.
        layers: Those for images, or for series.
        stem: Kernel and stride of the first convolution.
    """

    def __init__(self, *, in_channels: int, num_classes: int, depth: int, width: int, layers: Layers = IMAGES, stem: tuple[int, int] = (3, 1)) -> None:
        super().__init__()
        self.conv1 = layers.convolution(in_channels, width, stem[0], stem[1], padding=stem[0] // 2, bias=False)
        self.bn1 = layers.batch_norm(width)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(layers, width, width, depth, stride=1)
        self.layer2 = self._stage(layers, width, 2 * width, depth, stride=2)
        self.layer3 = self._stage(layers, 2 * width, 4 * width, depth, stride=2)
        self.pool = layers.average(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, layers.convolution):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(layers: Layers, in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
        first = BasicBlock(layers, in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(layers, channels, channels, 1) for _ in range(depth - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, in_channels, h, w), or series (n, in_channels, t), to scores (n, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        found: torch.Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return found


def resnet20(*, in_channels: int, num_classes: int, width: int = 16) -> CifarResNet:
    """ResNet-20: three blocks a stage; `width` 16 is the paper's, 32 twice as wide."""
    return CifarResNet(in_channels=in_channels, num_classes=num_classes, depth=3, width=width)


def resnet8(*, in_channels: int, num_classes: int, width: int = 16) -> CifarResNet:
    """ResNet-8: one block a stage, for tests and quick trials."""
    return CifarResNet(in_channels=in_channels, num_classes=num_classes, depth=1, width=width)


def series_resnet14(*, in_channels: int, num_classes: int, width: int = 16) -> CifarResNet:
    """14 layers for time series: two blocks of five taps a stage; the stem keeps every fourth place."""
    return CifarResNet(in_channels=in_channels, num_classes=num_classes, depth=2, width=width, layers=SERIES, stem=(9, 4))
