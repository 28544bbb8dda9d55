"""Networks by name, and how one is built from its config."""

import torch
from torch import nn

from profiles.errors import ConfigError, describe
from stages.models.config import ModelConfig
from stages.registry import resolve

FACTORIES = {
    "resnet20": "stages.models.cifar_resnet:resnet20",
    "resnet8": "stages.models.cifar_resnet:resnet8",
}


def build_network(config: ModelConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build the dense network with the initial weights of its seed.

    Args:
        config: Which network.
        image_shape: (channels, height, width).
        num_classes: Number of logits.

    Raises:
        ConfigError: The network does not exist or refuses its options.
    """
    factory = resolve(config.name, FACTORIES, "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            network: nn.Module = factory(in_channels=image_shape[0], num_classes=num_classes, **config.options)
        except TypeError as error:
            raise ConfigError(
                describe(
                    f"model.options do not fit model {config.name!r}", given=config.options, allowed=str(error), fix="use the factory's own keyword arguments"
                )
            ) from error
    return network
