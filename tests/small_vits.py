"""Small networks with attention: torch's encoder and attention in several uses, torchvision's and timm's vision transformers."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torchvision.models import VisionTransformer

from bonsai.stages.networks.attention import replace_attention
from bonsai.stages.networks.timm_models import make


class Encoded(nn.Module):
    """torch's encoder over patches, with a token for the class and dropout in training."""

    def __init__(self, in_channels: int = 3, num_classes: int = 5, width: int = 24, heads: int = 4, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, 40, batch_first=True, **options)
        self.patches, self.token = nn.Conv2d(in_channels, width, 4, 4), nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1))[:, 0])


class TokensFirst(nn.Module):
    """A layer of torch's that has the tokens first, and attention that is asked for its weights, which nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layer = nn.Conv2d(3, 24, 4, 4), nn.TransformerEncoderLayer(24, 3, 32, dropout=0.0)
        self.attention, self.head = nn.MultiheadAttention(24, 4), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.layer(self.patches(x).flatten(2).permute(2, 0, 1))
        found, _ = self.attention(tokens, tokens, tokens)
        return self.head(found.mean(0))


class Pooled(nn.Module):
    """Attention of one query over the pixels, whose keys and values have other widths than the query."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.keys, self.values = (nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 16), (16, 20), (16, 12)))
        self.query, self.norm = nn.Linear(16, 24), nn.LayerNorm(24)
        self.attention, self.head = nn.MultiheadAttention(24, 4, kdim=20, vdim=12, batch_first=True), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        keys, values = (layer(x).flatten(2).transpose(1, 2) for layer in (self.keys, self.values))
        found = self.attention(self.query(x.mean((2, 3))).unsqueeze(1), keys, values, need_weights=False)[0]
        return self.head(self.norm(found).squeeze(1))


def torchvision_vit(in_channels: int = 3, num_classes: int = 5, **options: Any) -> nn.Module:
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 64, **options}
    network = VisionTransformer(**sizes, num_classes=num_classes)
    network.conv_proj = nn.Conv2d(in_channels, sizes["hidden_dim"], sizes["patch_size"], sizes["patch_size"])
    return network


class Case(NamedTuple):
    """A network and what must be prunable in it.

    Attributes:
        make: Builds it.
        size: Side of an image.
        heads: Groups of heads.
        others: Groups of other channels.
        refused: Groups that are refused, by name.
    """

    make: Callable[[], nn.Module]
    size: int
    heads: int
    others: int
    refused: tuple[str, ...] = ()


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: make(name, in_channels=3, num_classes=5, **options)


SMALL = {"img_size": 32, "patch_size": 8, "depth": 2}
QUICK = {
    "encoder": Case(Encoded, 16, 2, 3),
    "encoder, norms first": Case(lambda: Encoded(norm_first=True, activation="gelu"), 16, 2, 3),
    "encoder without biases": Case(lambda: Encoded(bias=False), 16, 2, 3),
    "tokens first": Case(TokensFirst, 16, 2, 3),
    "pooled": Case(Pooled, 16, 1, 5),
    "torchvision": Case(torchvision_vit, 32, 2, 3),
    "vit_tiny": Case(of_timm("vit_tiny_patch16_224", **SMALL), 32, 2, 3),
    "deit_tiny": Case(of_timm("deit_tiny_distilled_patch16_224", **SMALL), 32, 2, 3),
    "swin_tiny": Case(
        of_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2), embed_dim=48, num_heads=(3, 6)),
        64,
        4,
        6,
    ),
    "levit": Case(of_timm("levit_128s", img_size=64, embed_dim=(32, 48), num_heads=(4, 4), depth=(1, 1), key_dim=8, attn_ratio=2, mlp_ratio=2), 64, 3, 8),
}  # LeViT's keys are as wide as two images have heads
VIT_B_16 = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
WHOLE = {
    "torchvision vit_b_16": Case(partial(torchvision_vit, **VIT_B_16), 224, 12, 13),
    "vit_tiny": Case(of_timm("vit_tiny_patch16_224"), 224, 12, 13),
    "deit_tiny": Case(of_timm("deit_tiny_distilled_patch16_224"), 224, 12, 13),
    "swin_tiny": Case(of_timm("swin_tiny_patch4_window7_224"), 224, 12, 16),
    "levit": Case(of_timm("levit_128s"), 224, 11, 17, ("stages.2.downsample.attn_downsample.kv.linear",)),
    "efficientformer": Case(of_timm("efficientformer_l1"), 224, 1, 20),
    "mobilevit": Case(of_timm("mobilevit_xxs"), 256, 9, 34),
}


def made(case: Case, seed: int = 0) -> nn.Module:
    """Build a network as a recipe does, with outputs that depend on everything in it."""
    torch.manual_seed(seed)
    network = case.make()
    replace_attention(network)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data.mul_(0.8 + 0.4 * torch.rand_like(tensor)).add_(0.02 * torch.rand_like(tensor))
    return network.eval()
