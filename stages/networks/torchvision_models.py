"""torchvision's classifiers, for images of any number of channels."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision import models


def make(name: str, *, in_channels: int, num_classes: int, **options: Any) -> nn.Module:
    """Build one of torchvision's networks with random weights.

    Args:
        name: Name for `torchvision.models.get_model`.
        in_channels: Channels of the images; the first convolution is replaced where they are not three.
        num_classes: Number of classes.
        **options: Passed to the network's own constructor.
    """
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        where, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        shape = {"kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
        network.set_submodule(where, nn.Conv2d(in_channels, first.out_channels, **shape))  # type: ignore[arg-type]
    return network


resnet18: Callable[..., nn.Module] = partial(make, "resnet18")
resnet50: Callable[..., nn.Module] = partial(make, "resnet50")
mobilenet_v2: Callable[..., nn.Module] = partial(make, "mobilenet_v2")
mobilenet_v3_small: Callable[..., nn.Module] = partial(make, "mobilenet_v3_small")
efficientnet_b0: Callable[..., nn.Module] = partial(make, "efficientnet_b0")
regnet_x_400mf: Callable[..., nn.Module] = partial(make, "regnet_x_400mf")
regnet_y_400mf: Callable[..., nn.Module] = partial(make, "regnet_y_400mf")
densenet121: Callable[..., nn.Module] = partial(make, "densenet121")
