"""torchvision's networks for classification and segmentation, for images of any number of channels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models

from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.networks.library_names import require_known

AUXILIARY = ("aux_logits", "aux_loss")
"""Options that give a network a second output, which trains it alone; it is left out unless `options` ask for it."""
AUXILIARY_LAYERS = ("aux_classifier.", "aux1.", "aux2.", "AuxLogits.")
TRANSFORMING = ("googlenet", "inception_v3")
"""Networks whose weights torchvision loads with `transform_input`: forward() then turns ImageNet's normalisation into inputs from -1 to 1, which the weights
were trained with. Without that option, Bonsai normalises images so itself."""


def make(name: str, *, in_channels: int, num_classes: int, **options: Any) -> nn.Module:
    """Build one of torchvision's networks with random weights.

    Args:
        name: Name for `torchvision.models.get_model`.
        in_channels: Channels of the images; the first convolution is replaced where they are not three.
        num_classes: Number of classes.
        **options: Passed to the network's own constructor.

    Raises:
        ConfigError: torchvision has no such network for classification or segmentation.
    """
    _require(name)
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **{**_defaults(name), **options})
    if in_channels != 3:
        where, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        shape = {"kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
        network.set_submodule(where, nn.Conv2d(in_channels, first.out_channels, **shape))  # type: ignore[arg-type]
    return network


def pretrained(name: str, **options: Any) -> dict[str, torch.Tensor]:
    """Return torchvision's default weights of a network, for its own number of classes; they are fetched unless they lie in torch's cache.

    The weights of a second output that only trains the network are left out unless `options` ask for that output.
    """
    state = models.get_model_weights(name).DEFAULT.get_state_dict(progress=False)
    asked = any(options.get(option) for option in AUXILIARY)
    return {key: value for key, value in state.items() if asked or not key.startswith(AUXILIARY_LAYERS)}


def preprocess(name: str, **options: Any) -> Preprocess:
    """Return how torchvision's weights of a network want images prepared. Those for segmentation take images of any size: it says the shorter side.

    Args:
        name: As for `make`.
        **options: As for `make`; with `transform_input` the network changes the normalisation itself.

    Raises:
        ConfigError: torchvision has no such network.
    """
    _require(name)
    known = models.get_model_weights(name).DEFAULT.transforms()
    channels, resized = len(known.mean), known.resize_size[0]
    size = getattr(known, "crop_size", known.resize_size)[0]
    how = {"resize": "crop", "crop": size / resized} if hasattr(known, "crop_size") else {}
    found = Preprocess(channels=channels, size=(size, size), mean=known.mean, std=known.std, interpolation=known.interpolation.value, **how)
    if name not in TRANSFORMING or options.get("transform_input"):
        return found
    plain = Preprocess.of(found.image_shape)
    return found.model_copy(update={"mean": plain.mean, "std": plain.std})


def _require(name: str) -> None:
    names = [*models.list_models(module=models), *models.list_models(module=models.segmentation)]
    require_known("torchvision", name, known=name in names, names=names)


def _defaults(name: str) -> dict[str, bool | None]:
    """Return options that leave out a second output, and a backbone's own weights, which would be fetched."""
    if name in models.list_models(module=models.segmentation):
        return {"weights_backbone": None, **({} if name.startswith("lraspp") else {"aux_loss": False})}
    return {"aux_logits": False, "init_weights": True} if name in TRANSFORMING else {}


resnet18: Callable[..., nn.Module] = partial(make, "resnet18")
resnet50: Callable[..., nn.Module] = partial(make, "resnet50")
mobilenet_v2: Callable[..., nn.Module] = partial(make, "mobilenet_v2")
mobilenet_v3_small: Callable[..., nn.Module] = partial(make, "mobilenet_v3_small")
efficientnet_b0: Callable[..., nn.Module] = partial(make, "efficientnet_b0")
regnet_x_400mf: Callable[..., nn.Module] = partial(make, "regnet_x_400mf")
regnet_y_400mf: Callable[..., nn.Module] = partial(make, "regnet_y_400mf")
densenet121: Callable[..., nn.Module] = partial(make, "densenet121")
