"""Siblings of `hard_networks`: the same kinds of trouble, written in other ways; what must happen stands in `limits.py`."""

import numpy as np
import torch
from hard_networks import AttentionPool, Plain
from torch import nn
from torch.nn import functional as F

from bonsai.stages.networks.torchvision_models import make


class AlwaysNoise(Plain):
    """Random in evaluation too: no engine can compute what it computes."""

    def middle(self, x):
        return x + 0.5 * torch.randn_like(x)


class AlwaysDropout(Plain):
    """Forgets `self.training`: torch drops by default."""

    def middle(self, x):
        return F.dropout(x, 0.3)


class DropPath(Plain):
    """Stochastic depth as timm has it: an empty tensor that is filled in place."""

    def middle(self, x):
        if not self.training:
            return x
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.8).div_(0.8)


class DropBranch(nn.Module):
    """Stochastic depth as a module of its own."""

    def forward(self, x):
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.8).div_(0.8) if self.training else x


class DropPathModule(Plain):
    """The same in a module, which the graph calls."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.drop = DropBranch()

    def middle(self, x):
        return self.drop(x)


class BatchStatistics(Plain):
    """A BatchNorm without running statistics: it normalises by the batch in evaluation too, so an image alone gives other logits."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.bn2 = nn.BatchNorm2d(48, track_running_stats=False)


class PreHooked(Plain):
    """Negates what a layer reads, in a hook that runs before it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv3.register_forward_pre_hook(lambda module, inputs: (-inputs[0],))


class OldWeightNorm(Plain):
    """The weight is computed by a hook and is no leaf: torch refuses to copy it once it has run."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv2 = torch.nn.utils.weight_norm(self.conv2)


class NewWeightNorm(Plain):
    """The same as a parametrisation."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        torch.nn.utils.parametrizations.weight_norm(self.conv2)


class NoCopy(Plain):
    """Keeps a tensor that was computed: `copy.deepcopy` refuses it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.scale = nn.Parameter(torch.ones(48, 1, 1))
        self.doubled = self.scale * 2

    def middle(self, x):
        return x * self.doubled.detach()


class Mixed(Plain):
    """Paths mixed by parameters of the architecture, as searches mix them."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.left, self.right = nn.Conv2d(48, 48, 3, padding=1), nn.Conv2d(48, 48, 1)
        self.alphas = nn.ParameterList([nn.Parameter(torch.zeros(2))])

    def middle(self, x):
        weights = torch.softmax(self.alphas[0], 0)
        return F.relu(sum(weight * path(x) for weight, path in zip(weights, (self.left, self.right), strict=True)))


class ShuffleUnit(Plain):
    """Halves that take turns, as in ShuffleNet v2."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.branch, self.norm = nn.Conv2d(24, 24, 1, bias=False), nn.BatchNorm2d(24)

    def middle(self, x):
        kept, used = x.chunk(2, 1)
        x = torch.cat([kept, F.relu(self.norm(self.branch(used)))], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ZeroAttention(AttentionPool):
    """A key and a value of zeros beside the others."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.attention = nn.MultiheadAttention(48, 4, add_zero_attn=True, batch_first=True)


class SplitTokens(Plain):
    """Queries, keys and values out of one layer, by hand, as in most transformers."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.norm, self.qkv, self.proj = nn.LayerNorm(48), nn.Linear(48, 144), nn.Linear(48, 48)

    def middle(self, x):
        n, c, h, w = x.shape
        queries, keys, values = self.qkv(self.norm(x.flatten(2).transpose(1, 2))).reshape(n, h * w, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        tokens = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(n, h * w, c)
        return x + self.proj(tokens).transpose(1, 2).reshape(n, c, h, w)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation, as in NFNets and BiT."""

    def forward(self, x):
        spread, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
        return F.conv2d(x, (self.weight - mean) * torch.rsqrt(spread + 1e-5), self.bias, self.stride, self.padding, self.dilation, self.groups)


class Standardised(Plain):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv2, self.conv3 = StandardisedConv(48, 48, 3, padding=1), StandardisedConv(48, 96, 3, stride=2, padding=1)


class SharedBatchNorm(Plain):
    """One BatchNorm behind two convolutions."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.other = nn.Conv2d(48, 48, 1, bias=False)

    def middle(self, x):
        return F.relu(self.bn2(self.other(x)))


class HiddenBuffer(Plain):
    """A buffer that no checkpoint holds, drawn anew by every build."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register_buffer("mask", torch.from_numpy((np.random.rand(48, 1, 1) > 0.5).astype("float32")), persistent=False)

    def middle(self, x):
        return x * self.mask


class TwoOutputs(Plain):
    """An auxiliary head in training alone, as in Inception."""

    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class RaisesInTraining(Plain):
    """Fails where no evaluation looks."""

    def middle(self, x):
        return {}["targets"] if self.training else x


class OwnError(Exception):
    """An error of the user's own, which derives from nothing that is usual."""


class RaisesItsOwn(Plain):
    def middle(self, x):
        raise OwnError("the camera is not calibrated")


def raises_at_once(*, in_channels, num_classes, width=48):
    """Fails while it is built."""
    return {"backbone": Plain}["neck"](in_channels, num_classes)


class NoOnnx(Plain):
    """A matrix decomposition in its forward: torch runs it, no ONNX operator computes it."""

    def forward(self, x):
        return super().forward(x) * torch.linalg.qr(x.mean(1))[1].diagonal(dim1=1, dim2=2).abs().mean(1, keepdim=True)


class SplitDepthwise(Plain):
    """A depthwise convolution on a part of the channels, put back beside the rest, as in EdgeNeXt."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.part = nn.Conv2d(24, 24, 3, padding=1, groups=24)

    def middle(self, x):
        first, second = x.chunk(2, 1)
        return torch.cat([self.part(first), second], 1)


class Aggregated(Plain):
    """Grouped convolutions on queries, keys and values, as in EfficientViT."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.qkv, self.project = nn.Conv2d(48, 72, 1, bias=False), nn.Conv2d(48, 48, 1)
        self.aggregate = nn.Sequential(nn.Conv2d(72, 72, 5, padding=2, groups=72), nn.Conv2d(72, 72, 1, groups=9))

    def middle(self, x):
        n, _, h, w = x.shape
        qkv = self.qkv(x)
        queries, keys, values = torch.cat([qkv, self.aggregate(qkv)], 1).reshape(n, 6, 24, h * w).transpose(2, 3).chunk(3, -1)
        mixed = F.relu(queries) @ (F.relu(keys).transpose(2, 3) @ values) / (h * w)
        return x + self.project(mixed.transpose(2, 3).reshape(n, 48, h, w))


def shufflenet(*, in_channels, num_classes):
    """ShuffleNet v2 itself: Torch-Pruning divides by zero in its reshapes."""
    return make("shufflenet_v2_x0_5", in_channels=in_channels, num_classes=num_classes)


class SpectralNorm(Plain):
    """A weight whose power iteration goes on whenever it is looked at in training."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv2 = nn.utils.parametrizations.spectral_norm(nn.Conv2d(48, 48, 3, padding=1, bias=False))


class Probabilities(Plain):
    def forward(self, x):
        return super().forward(x).softmax(1)


def in_parallel(in_channels, num_classes):
    return nn.DataParallel(Plain(in_channels, num_classes))


def compiled(in_channels, num_classes):
    return torch.compile(Plain(in_channels, num_classes))


def scripted(in_channels, num_classes):
    return torch.jit.script(Plain(in_channels, num_classes))
