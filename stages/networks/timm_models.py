"""timm's networks."""

from typing import Any

import timm
import torch
from torch import nn

from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.networks.library_names import require_known

RESIZE = {"center": "crop", "squash": "stretch", "border": "pad"}
"""timm's words for how an image gets the network's size, and ours."""


def make(name: str, *, in_channels: int, num_classes: int, **options: Any) -> nn.Module:
    """Build one of timm's networks with random weights.

    Args:
        name: Name for `timm.create_model`, with or without the tag of its weights: ``resnet18``, ``resnet18.a1_in1k``.
        in_channels: Channels of the images.
        num_classes: Number of outputs.
        **options: Passed to `timm.create_model`.

    Raises:
        ConfigError: timm has no network of this name.
    """
    _require(name)
    network: nn.Module = timm.create_model(name, in_chans=in_channels, num_classes=num_classes, **options)
    return network


def pretrained(name: str, **options: Any) -> dict[str, torch.Tensor]:
    """Return the weights that timm has of a network, for its own number of classes; they are fetched unless they lie in timm's cache."""
    network: nn.Module = timm.create_model(name, pretrained=True, **options)
    return dict(network.state_dict())


def preprocess(name: str, **_options: Any) -> Preprocess:
    """Return how timm's weights of a network want images prepared, which no option changes.

    Raises:
        ConfigError: timm has no network of this name.
    """
    _require(name)
    known = timm.get_pretrained_cfg(name)
    assert known is not None, "a network without weights has timm's defaults"
    return Preprocess(
        channels=len(known.mean),
        size=known.input_size[1:],
        mean=known.mean,
        std=known.std,
        resize=RESIZE.get(known.crop_mode, "crop"),
        crop=known.crop_pct,
        interpolation=known.interpolation,
    )


def _require(name: str) -> None:
    require_known("timm", name, known=timm.is_model(name), names=timm.list_models())
