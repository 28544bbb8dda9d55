"""Small networks that are trained in branches and fused by their own methods, one for each way in which the libraries do it."""

import torch
from torch import nn
from torch.nn import functional

SHAPE = (1, 16, 16)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def kernel_and_bias(weight: torch.Tensor, bn: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return weight * scale[:, None, None, None], bn.bias - bn.running_mean * scale


class Rep(nn.Module):
    """RepVGG's block: 3x3, 1x1 and an identity, fused in place by sizes that no forward asks for; its gate stays."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.in_chs, self.out_chs, self.groups, self.stride = inputs, outputs, groups, stride
        self.large, self.point = conv_bn(inputs, outputs, 3, stride, groups), conv_bn(inputs, outputs, 1, stride, groups)
        self.identity = nn.BatchNorm2d(outputs) if inputs == outputs and stride == 1 else None
        self.gate = nn.Conv2d(outputs, outputs, 1)
        self.fused: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fused is not None:
            x = self.fused(x)
        else:
            found = self.large(x) + self.point(x)
            x = found if self.identity is None else found + self.identity(x)
        return torch.relu(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))

    def reparameterize(self) -> None:
        kernel, bias = kernel_and_bias(self.large[0].weight, self.large[1])
        point, more = kernel_and_bias(self.point[0].weight, self.point[1])
        kernel, bias = kernel + functional.pad(point, [1, 1, 1, 1]), bias + more
        if self.identity is not None:
            one = torch.zeros(self.in_chs, self.in_chs // self.groups, 3, 3, dtype=kernel.dtype)
            for channel in range(self.in_chs):
                one[channel, channel % (self.in_chs // self.groups), 1, 1] = 1
            one, more = kernel_and_bias(one, self.identity)
            kernel, bias = kernel + one, bias + more
        self.fused = nn.Conv2d(self.in_chs, self.out_chs, 3, self.stride, 1, groups=self.groups)
        self.fused.weight.data, self.fused.bias.data = kernel, bias
        for parameter in self.parameters():
            parameter.detach_()  # as timm's do
        del self.large, self.point, self.identity


class Pair(nn.Module):
    """RepViT's way: two convolutions whose `fuse` returns another module."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.other = conv_bn(inputs, outputs), conv_bn(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.other(x)

    @torch.no_grad()
    def fuse(self) -> nn.Module:
        assert not self.training
        (kernel, bias), (more, beside) = (kernel_and_bias(branch[0].weight, branch[1]) for branch in (self.one, self.other))
        made = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        made.weight.copy_(kernel + more)
        made.bias.copy_(bias + beside)
        return made


class Branched(nn.Module):
    """A network of both."""

    def __init__(self, *, in_channels: int = 1, num_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = Rep(in_channels, width, stride=2)
        self.same, self.depthwise = Rep(width, width), Rep(width, width, groups=width)
        self.pair, self.deep = Pair(width, 2 * width), Rep(2 * width, 2 * width, stride=2)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.same(self.stem(x)))
        return self.fc(self.deep(torch.relu(self.pair(x))).mean((2, 3)))


class Wrong(Branched):
    """Its last block forgets a branch."""

    def __init__(self, *, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes)
        self.deep = Forgetful(32, 32, stride=2)


class Forgetful(Rep):
    def reparameterize(self) -> None:
        self.point[1].weight.data.zero_()
        super().reparameterize()


class Failing(Branched):
    """Its stem cannot be fused."""

    def __init__(self, *, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes)
        self.stem = Refusing(in_channels, 16, stride=2)


class Refusing(Rep):
    def reparameterize(self) -> None:
        raise NotImplementedError("only on Tuesdays")
