"""A network that torch.fx cannot trace, though its forward asks for nothing but shapes; `resnet8` is the same network, traceable."""

import math

import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.networks.cifar_resnet import CifarResNet


class ComputedPadding(nn.Conv2d):
    """A convolution that works out its padding from the size of its input, as networks ported from TensorFlow do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, stride = x.shape[-1], self.stride[0]
        missing = max((math.ceil(size / stride) - 1) * stride + self.kernel_size[0] - size, 0)
        return functional.conv2d(x, self.weight, self.bias, self.stride, missing // 2)


class AskingResNet(CifarResNet):
    """Checks what it is given, and pools until one pixel is left."""

    def __init__(self, *, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes, depth=1, width=width)
        self.conv1 = ComputedPadding(in_channels, width, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.Tensor) or min(x.shape[-2:]) < 4:
            raise ValueError("give images of at least 4x4 pixels")
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        while x.shape[-1] % 2 == 0 and x.shape[-1] > 4:
            x = functional.avg_pool2d(x, 2)
        x = functional.dropout(x.mean((2, 3)), 0.1, self.training)
        return self.fc(x.view(len(x), -1))


def resnet8(*, in_channels: int, num_classes: int, width: int = 16) -> nn.Module:
    """Return the network; at 16 pixels it computes what `bonsai.stages.networks.cifar_resnet.resnet8` does."""
    return AskingResNet(in_channels=in_channels, num_classes=num_classes, width=width)


def by_value(*, in_channels: int, num_classes: int, width: int = 16) -> nn.Module:
    """Return a network that nothing can capture."""

    class ByValue(CifarResNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = super().forward(x)
            return x if x.sum() > 0 else -x

    return ByValue(in_channels=in_channels, num_classes=num_classes, depth=1, width=width)
