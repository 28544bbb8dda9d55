"""Residual network of one-dimensional convolutions, for time series: the layout of `cifar_resnet.py` with time in the place of height and width."""

import torch
from torch import nn


class SeriesBlock(nn.Module):
    """Two convolutions of five taps and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, channels, 5, stride, padding=2, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv1d(channels, channels, 5, padding=2, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv1d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm1d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, t) to (n, channels, t / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: torch.Tensor = self.relu(y + self.shortcut(x))
        return out


class SeriesResNet(nn.Module):
    """Stem that keeps every fourth place, three stages of `depth` blocks at `width`, 2x and 4x `width` channels, average over time, classifier."""

    def __init__(self, *, in_channels: int, num_classes: int, depth: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, width, 9, stride=4, padding=4, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(width, width, depth, stride=1)
        self.layer2 = self._stage(width, 2 * width, depth, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, depth, stride=2)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
        first = SeriesBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(SeriesBlock(channels, channels, 1) for _ in range(depth - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map series (n, in_channels, t) to scores (n, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        found: torch.Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return found


def series_resnet14(*, in_channels: int, num_classes: int, width: int = 16) -> SeriesResNet:
    """Two blocks a stage: 14 layers on the longest way."""
    return SeriesResNet(in_channels=in_channels, num_classes=num_classes, depth=2, width=width)
