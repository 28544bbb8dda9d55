"""A detector of the YOLOv8 kind: blocks whose halves go on side by side (C2f), a pyramid of poolings, a neck that joins three scales, a head for each."""

import torch
from torch import nn
from torch.nn import functional

SHAPE = (3, 64, 64)
HEADS = ("0", "1", "2")


class Conv(nn.Sequential):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())


class Bottleneck(nn.Module):
    """Two convolutions, with a skip connection or without."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = Conv(channels, channels, 3), Conv(channels, channels, 3), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.second(self.first(x))
        return x + found if self.shortcut else found


class C2f(nn.Module):
    """One half of a convolution's channels goes through bottlenecks; all that they make is joined with both halves."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.split, self.join = Conv(inputs, 2 * half), Conv((2 + depth) * half, outputs)
        self.inner = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = list(self.split(x).chunk(2, 1))
        for block in self.inner:
            made.append(block(made[-1]))
        return self.join(torch.cat(made, 1))


class Pyramid(nn.Module):
    """Poolings of poolings, joined (SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow, self.pool, self.join = Conv(channels, channels // 2), nn.MaxPool2d(5, 1, 2), Conv(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [self.narrow(x)]
        for _ in range(3):
            made.append(self.pool(made[-1]))
        return self.join(torch.cat(made, 1))


class Detector(nn.Module):
    """Gives a map of boxes and classes at three scales; boxes are decoded elsewhere."""

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        w = width
        self.stem, self.down2, self.c2 = Conv(3, w, 3, 2), Conv(w, 2 * w, 3, 2), C2f(2 * w, 2 * w, 1, shortcut=True)
        self.down3, self.c3 = Conv(2 * w, 4 * w, 3, 2), C2f(4 * w, 4 * w, 2, shortcut=True)
        self.down4, self.c4 = Conv(4 * w, 6 * w, 3, 2), C2f(6 * w, 6 * w, 2, shortcut=True)
        self.down5, self.c5, self.pyramid = Conv(6 * w, 8 * w, 3, 2), C2f(8 * w, 8 * w, 1, shortcut=True), Pyramid(8 * w)
        self.up4, self.up3 = C2f(14 * w, 6 * w, 1, shortcut=False), C2f(10 * w, 4 * w, 1, shortcut=False)
        self.to4, self.at4 = Conv(4 * w, 4 * w, 3, 2), C2f(10 * w, 6 * w, 1, shortcut=False)
        self.to5, self.at5 = Conv(6 * w, 6 * w, 3, 2), C2f(14 * w, 8 * w, 1, shortcut=False)
        self.strides = torch.tensor([8.0, 16.0, 32.0])  # an attribute, and no buffer
        self.heads = nn.ModuleList(nn.Sequential(Conv(n * w, 2 * w, 3), nn.Conv2d(2 * w, 4 + classes, 1)) for n in (4, 6, 8))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        third = self.c3(self.down3(self.c2(self.down2(self.stem(x)))))
        fourth = self.c4(self.down4(third))
        fifth = self.pyramid(self.c5(self.down5(fourth)))
        fourth = self.up4(torch.cat([functional.interpolate(fifth, scale_factor=2.0), fourth], 1))
        third = self.up3(torch.cat([functional.interpolate(fourth, scale_factor=2.0), third], 1))
        fourth = self.at4(torch.cat([self.to4(third), fourth], 1))
        fifth = self.at5(torch.cat([self.to5(fourth), fifth], 1))
        return [head(found) for head, found in zip(self.heads, (third, fourth, fifth), strict=True)]
