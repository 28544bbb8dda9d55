"""Networks by name, and how one is built from its config."""

import torch
from torch import nn

from profiles.errors import ConfigError, describe
from stages.models.config import ModelConfig
from stages.registry import resolve

FACTORIES = {
    "resnet20": "stages.models.cifar_resnet:resnet20",
    "resnet8": "stages.models.cifar_resnet:resnet8",
    "resnet18": "stages.models.torchvision_models:resnet18",
    "resnet50": "stages.models.torchvision_models:resnet50",
    "mobilenet_v2": "stages.models.torchvision_models:mobilenet_v2",
    "mobilenet_v3_small": "stages.models.torchvision_models:mobilenet_v3_small",
    "efficientnet_b0": "stages.models.torchvision_models:efficientnet_b0",
    "regnet_x_400mf": "stages.models.torchvision_models:regnet_x_400mf",
    "regnet_y_400mf": "stages.models.torchvision_models:regnet_y_400mf",
    "densenet121": "stages.models.torchvision_models:densenet121",
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
        except (TypeError, ValueError, RuntimeError) as error:
            given = f"in_channels={image_shape[0]}, num_classes={num_classes}" + "".join(f", {key}={value!r}" for key, value in config.options.items())
            raise ConfigError(
                describe(
                    f"model.options do not fit model {config.name!r}",
                    given=given,
                    allowed=str(error),
                    fix="let the factory take in_channels and num_classes, and model.options name its other keyword arguments",
                )
            ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            describe(
                f"model {config.name!r} is no network", given=type(network).__name__, allowed="a torch.nn.Module", fix="let the factory return the network"
            )
        )
    return network


@torch.no_grad()
def require_logits(network: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run a network once on two black images.

    Raises:
        ConfigError: It fails, or gives anything but logits (2, num_classes).
    """
    training = network.training
    try:
        logits = network.eval()(torch.zeros(2, *image_shape))
    except (RuntimeError, ValueError, TypeError) as error:
        problem = "the network does not run on the dataset's images"
        raise ConfigError(
            describe(problem, given=f"images {image_shape}: {error}", allowed="a network for images of this shape", fix="change model.options or data.options")
        ) from error
    network.train(training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            describe(
                "the network gives no logits", given=f"{found} for two images", allowed=f"(2, {num_classes})", fix="let forward() return (images, classes)"
            )
        )


def require_own_weights(network: nn.Module) -> None:
    """Refuse layers that share a parameter: a checkpoint holds every parameter once.

    Raises:
        ConfigError: Two names stand for one parameter.
    """
    first: dict[nn.Parameter, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if first.setdefault(parameter, name) != name:
            problem = "two layers of the network share a parameter"
            raise ConfigError(
                describe(problem, given=f"{first[parameter]} and {name}", allowed="a parameter of its own for each", fix="untie them, or choose another model")
            )


def to_channels_last(network: nn.Module) -> None:
    """Lay four-dimensional weights out channels-last, which convolutions on a CPU are fastest in; done after every cut."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
