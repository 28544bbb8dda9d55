"""Networks that can be named, and the functions that build them; apart from `registry.py`, because a list of names needs no torch."""

from typing import NamedTuple

LIBRARIES = {"timm": "bonsai.stages.networks.timm_models", "torchvision": "bonsai.stages.networks.torchvision_models"}
"""By library, the module that builds its networks, fetches their weights and knows their preprocessing. Networks are named ``timm/NAME`` and the like."""
FACTORIES = {
    "resnet20": "bonsai.stages.networks.cifar_resnet:resnet20",
    "resnet8": "bonsai.stages.networks.cifar_resnet:resnet8",
    "series_resnet14": "bonsai.stages.networks.cifar_resnet:series_resnet14",
    "unet": "bonsai.stages.networks.unet:unet",
    **{
        name: f"{LIBRARIES['torchvision']}:{name}"
        for name in (
            "resnet18",
            "resnet50",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "regnet_x_400mf",
            "regnet_y_400mf",
            "densenet121",
        )
    },
}


class LibraryModel(NamedTuple):
    """A network of another library.

    Attributes:
        library: A key of `LIBRARIES`.
        model: The library's own name of the network.
    """

    library: str
    model: str


def of_library(name: str) -> LibraryModel | None:
    """Return which network of which library a name stands for; None for a network of Bonsai's or of the user's own."""
    library, slash, model = name.partition("/")
    if slash and library in LIBRARIES:
        return LibraryModel(library, model)
    module, _, attribute = FACTORIES.get(name, "").partition(":")
    return next((LibraryModel(known, attribute) for known, place in LIBRARIES.items() if place == module), None)
