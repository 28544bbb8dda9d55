"""Small networks, each with one thing that a compressor gets wrong easily; what must happen stands in the tests that use them.

Each builds on `Plain`, four layers wide enough for a channel step of 16.
"""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    def __init__(self, in_channels=3, num_classes=10, width=48):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width)
        self.fc = nn.Linear(2 * width, num_classes)

    def middle(self, x):
        return x

    def forward(self, x):
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.conv3(self.middle(x))))
        return self.fc(x.mean((2, 3)))


class TrainingNoise(Plain):
    """A usual regulariser: noise in training only."""

    def middle(self, x):
        return x + 0.05 * torch.randn_like(x) if self.training else x


class FunctionalDropout(Plain):
    def middle(self, x):
        return torch.dropout(x, 0.3, self.training)


class NormAct(nn.BatchNorm2d):
    """BatchNorm and activation in one module, as several libraries have it."""

    def forward(self, x):
        return F.relu(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps))


class FusedNorm(Plain):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.extra, self.norm = nn.Conv2d(48, 48, 3, padding=1, bias=False), NormAct(48)

    def middle(self, x):
        return self.norm(self.extra(x))


class SharedConvolution(Plain):
    """One convolution on two resolutions, a BatchNorm for each: heads of detectors."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.shared, self.norm_a, self.norm_b = nn.Conv2d(48, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.BatchNorm2d(48)
        nn.init.constant_(self.norm_a.weight, 0.5)
        nn.init.constant_(self.norm_b.weight, 3.0)

    def middle(self, x):
        small = F.relu(self.norm_b(self.shared(F.max_pool2d(x, 2))))
        return F.relu(self.norm_a(self.shared(x))) + F.interpolate(small, scale_factor=2.0)


class Siamese(Plain):
    """One block for an image and its mirror."""

    def forward(self, x):
        def block(image):
            return F.relu(self.bn1(self.conv1(image)))

        x = F.relu(self.bn2(self.conv2(block(x) + block(x.flip(3)))))
        return self.fc(F.relu(self.bn3(self.conv3(x))).mean((2, 3)))


class Hooked(Plain):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv2.register_forward_hook(lambda module, inputs, output: output.roll(1, 1))


class ChannelAttention(Plain):
    """ECA: a 1-D convolution over channels."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.eca = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def middle(self, x):
        return x * torch.sigmoid(self.eca(x.mean((2, 3)).unsqueeze(1))).squeeze(1)[:, :, None, None]


class ReflectPadding(Plain):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv2 = nn.Conv2d(48, 48, 3, padding=1, padding_mode="reflect", bias=False)


class AttentionPool(Plain):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.attention = nn.MultiheadAttention(48, 4, batch_first=True)

    def middle(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return x + self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


class CosineHead(Plain):
    def __init__(self, in_channels=3, num_classes=10, width=48):
        super().__init__(in_channels, num_classes, width)
        self.fc = nn.Identity()
        self.prototypes = nn.Parameter(torch.randn(num_classes, 2 * width))

    def forward(self, x):
        return F.linear(F.normalize(super().forward(x)), F.normalize(self.prototypes)) * 10


class Factorised(Plain):
    """1x7 and 7x1 convolutions: true cost is that of seven weights a filter."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.row, self.column = nn.Conv2d(48, 48, (1, 7), padding=(0, 3)), nn.Conv2d(48, 48, (7, 1), padding=(3, 0))

    def middle(self, x):
        return F.relu(self.column(F.relu(self.row(x))))


class HiddenMask(Plain):
    """State that no state_dict holds: drawn anew by every rebuild."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.mask = torch.from_numpy((np.random.rand(48, 1, 1) > 0.5).astype("float32"))
        self.order = random.sample(range(48), 48)

    def middle(self, x):
        return (x * self.mask)[:, self.order]


class InPlaceInput(Plain):
    """Normalises its input in place: a grey image that is used twice is normalised twice."""

    def forward(self, x):
        return super().forward(x.sub_(0.3).div_(0.5))


class Shuffled(nn.Module):
    """A channel shuffle before many untrained layers: cutting the stem is wrong, and the logits hardly tell."""

    def __init__(self, in_channels=3, num_classes=10, depth=16):
        super().__init__()

        def block(inputs, outputs):
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

        self.stem, self.body = block(in_channels, 32), nn.Sequential(*(block(32, 32) for _ in range(depth)))
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(self.body(x).mean((2, 3)))


class Raises(Plain):
    def __init__(self, in_channels=3, num_classes=10, error="assert", width=48):
        super().__init__(in_channels, num_classes, width)
        self.error = error

    def middle(self, x):
        if self.error == "assert":
            assert x.shape[-1] == 224, "expected 224x224 images"
        return {"index": lambda: [][0], "key": lambda: {}["head"], "attribute": lambda: x.no_such(), "zero": lambda: 1 // 0}.get(self.error, lambda: x)()


class FromFile(Plain):
    """Reads trained weights in its constructor: another file is another input."""

    def __init__(self, in_channels=3, num_classes=10, file="weights.pth"):
        super().__init__(in_channels, num_classes)
        self.load_state_dict(torch.load(file, weights_only=True))
