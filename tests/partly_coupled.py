"""Small networks whose layers share channels in part, or lose whole groups of them."""

import torch
from torch import nn
from torch.nn import functional


class CrossStage(nn.Module):
    """A C2f block of YOLOv8: halves of a convolution, and what two bottlenecks make of the second one, are joined."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, 2 * width, 1)
        self.inner = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1)) for _ in range(2))
        self.last, self.head = nn.Conv2d(4 * width, width, 1), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(functional.silu(self.first(functional.silu(self.stem(x)))).chunk(2, 1))
        for bottleneck in self.inner:
            parts.append(parts[-1] + bottleneck(parts[-1]))
        return self.head(functional.silu(self.last(torch.cat(parts, 1))).mean((2, 3)))


class Grouped(nn.Module):
    """Convolutions in many groups, which leave whole, and in few, which lose a channel each; transposed, and depthwise, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.many, self.between = nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 48, 3, padding=1, groups=6), nn.Conv2d(48, 16, 1)
        self.few, self.up = nn.Conv2d(16, 32, 3, padding=1, groups=2), nn.ConvTranspose2d(32, 16, 2, 2, groups=16)
        self.point, self.depthwise, self.head = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 24, 3, padding=1, groups=12), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.between(torch.relu(self.many(torch.relu(self.stem(x))))))
        x = torch.relu(self.point(torch.relu(self.up(torch.relu(self.few(x))))))
        return self.head(torch.relu(self.depthwise(x)).mean((2, 3)))


class Pieces(nn.Module):
    """MixConv: a convolution's outputs are split, by sizes that are an attribute, between two convolutions, whose outputs are joined."""

    def __init__(self, sizes: tuple[int, int] = (12, 8)) -> None:
        super().__init__()
        self.sizes = sizes
        self.stem, self.wide = nn.Conv2d(3, sum(sizes), 3, 2, 1), nn.Conv2d(sizes[1], 16, 5, padding=2)
        self.depthwise, self.point, self.head = nn.Conv2d(sizes[0], sizes[0], 3, padding=1, groups=sizes[0]), nn.Conv2d(sizes[0] + 16, 12, 1), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.stem(x)).split(self.sizes, 1)
        joined = torch.cat([torch.relu(self.depthwise(left)), torch.relu(self.wide(right))], 1)
        return self.head(torch.relu(self.point(joined)).mean((2, 3)))


class Shuffled(nn.Module):
    """A unit of ShuffleNet: the second half is computed anew, then channels are shuffled."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.branch, self.last, self.head = (
            nn.Conv2d(3, 2 * width, 3, 2, 1),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(2 * width, 8, 1),
            nn.Linear(8, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.stem(x)).chunk(2, 1)
        joined = functional.channel_shuffle(torch.cat([left, torch.relu(self.branch(right))], 1), 2)
        return self.head(torch.relu(self.last(joined)).mean((2, 3)))


class Attention(nn.Module):
    """A block of a vision transformer: attention by torch's function, whose heads leave whole, and a gated MLP, whose halves leave alike."""

    def __init__(self, dim: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.num_heads = heads
        self.patch, self.norm, self.qkv, self.proj = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down, self.head = nn.Linear(dim, 64), nn.Linear(32, dim), nn.Linear(dim, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        n, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        gate, value = self.up(x).chunk(2, -1)
        return self.head((x + self.down(functional.gelu(gate) * value)).mean(1))


NETWORKS = {kind.__name__: kind for kind in (CrossStage, Grouped, Pieces, Shuffled, Attention)}
