"""Residual networks in the CIFAR layout of He et al., arXiv 1512.03385, section 4.2.

Three stages of basic blocks at full, half and quarter resolution; where the shape changes, the shortcut
is a 1x1 convolution (option B).
"""

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, h, w) to (n, channels, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: torch.Tensor = self.relu(y + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """Stem, three stages of `depth` blocks at `width`, 2x and 4x `width` channels, average pooling, classifier."""

    def __init__(self, *, in_channels: int, num_classes: int, depth: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(width, width, depth, stride=1)
        self.layer2 = self._stage(width, 2 * width, depth, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, depth, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(depth - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, in_channels, h, w) to scores (n, num_classes)."""
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
