"""Which networks the zoo holds, and how each is built: timm's and torchvision's own factories, with random weights."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import bonsai.stages  # noqa: F401  # comes first: it makes `import torchvision` work beside a CPU build of torch

# isort: split
import timm
import torch
from torch import nn
from torchvision import models

from bonsai.stages.networks.torchvision_models import make

TIMM_MODULES = (
    "resnet",
    "densenet",
    "vgg",
    "mobilenetv3",
    "efficientnet",
    "regnet",
    "ghostnet",
    "hrnet",
    "dla",
    "vovnet",
    "cspnet",
    "inception_v3",
    "repvgg",
    "byobnet",
    "convnext",
    "fastvit",
    "mobilevit",
    "efficientvit_mit",
    "levit",
    "vision_transformer",
    "swin_transformer",
    "nfnet",
    "resnest",
    "sknet",
    "edgenext",
    "dpn",
    "xception",
    "selecsls",
    "hardcorenas",
    "rexnet",
)

TORCHVISION_FAMILIES = ("shufflenet", "squeezenet", "googlenet", "mnasnet")
FIRST = 4
"""Networks of each module, in the order of the alphabet."""
SIZES = (64, 96, 128, 160, 192, 224)
"""Edges of the images, in pixels: the first that a network runs on is taken."""


class Entry(NamedTuple):
    """A network of the zoo.

    Attributes:
        module: timm's module, or torchvision's family.
        model: Name that its package knows it by.
        factory: Import string.
    """

    module: str
    model: str
    factory: str

    @property
    def key(self) -> str:
        """The name of its row."""
        return f"{self.module}/{self.model}"


def entries() -> tuple[Entry, ...]:
    """Return the zoo: the first networks of every module."""
    return (*_of_timm(), *_of_torchvision())


def _of_timm() -> Iterator[Entry]:
    for module in TIMM_MODULES:
        # RepVGG has no module of its own in timm 1.0, it is a part of byobnet: its name stands in for one
        found = timm.list_models(module=module) or timm.list_models(f"{module}_*")
        yield from (Entry(module, model, "zoo_models:timm_network") for model in sorted(found)[:FIRST])


def _of_torchvision() -> Iterator[Entry]:
    for family in TORCHVISION_FAMILIES:
        found = [model for model in models.list_models(module=models) if model.startswith(family)]
        yield from (Entry(family, model, "zoo_models:torchvision_network") for model in sorted(found)[:FIRST])


def timm_network(*, in_channels: int, num_classes: int, model: str, **options: Any) -> nn.Module:
    """Build one of timm's networks."""
    network: nn.Module = timm.create_model(model, in_chans=in_channels, num_classes=num_classes, **options)
    return network


def torchvision_network(*, in_channels: int, num_classes: int, model: str) -> nn.Module:
    """Build one of torchvision's networks, without the second output that googlenet has in training."""
    return make(model, in_channels=in_channels, num_classes=num_classes, **({"aux_logits": False} if model == "googlenet" else {}))


def options_at(entry: Entry, size: int) -> dict[str, int | float | str | bool]:
    """Return the options of an entry's factory for images of a size: a network of a fixed size is built for it."""
    known = timm.get_pretrained_cfg(entry.model, allow_unregistered=True) if entry.factory.endswith("timm_network") else None
    return {"model": entry.model, **({"img_size": size} if known is not None and known.fixed_input_size else {})}


def sizes_of(entry: Entry) -> tuple[int, ...]:
    """Return the sizes to try, the network's own last."""
    known = timm.get_pretrained_cfg(entry.model, allow_unregistered=True) if entry.factory.endswith("timm_network") else None
    return tuple(dict.fromkeys((*SIZES, *([known.input_size[-1]] if known is not None else []))))


def smallest_size(entry: Entry, num_classes: int) -> int:
    """Return the first size at which an entry's network is built and runs, in training and in evaluation.

    Raises:
        ValueError: There is none; it says what the last attempt raised.
    """
    problem = ""
    for size in sizes_of(entry):
        try:
            network = globals()[entry.factory.partition(":")[2]](in_channels=3, num_classes=num_classes, **options_at(entry, size))
            with torch.no_grad():
                for training in (True, False):
                    network.train(training)(torch.zeros(2, 3, size, size))
        except Exception as error:  # whatever a network raises on images that are too small
            problem = f"{type(error).__name__}: {error}"
        else:
            return size
    raise ValueError(f"it runs at none of {', '.join(map(str, sizes_of(entry)))} pixels; the last one said {problem}")
