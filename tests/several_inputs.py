"""Networks of several inputs: an image and some numbers, and two images that share their layers."""

import torch
from torch import nn

IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
NUMBERS = torch.randn(32, 3, generator=torch.Generator().manual_seed(2))


class Measured(nn.Module):
    """An image with some numbers that were measured beside it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        self.numbers, self.head = nn.Sequential(nn.Linear(3, width), nn.ReLU()), nn.Linear(2 * width, 4)

    def forward(self, image: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.cat([self.body(image).mean((2, 3)), self.numbers(numbers)], 1))
        return found


class Compared(nn.Module):
    """Two images, which the same layers look at."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        left, right = self.body(left), self.body(right)
        return {"maps": left - right, "same": self.head((left - right).abs().mean((2, 3)))}
