"""What `bonsai init --weights` must know of trained weights before it writes a recipe that fine-tunes them."""

from math import ceil
from typing import NamedTuple

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.config import PRETRAINED, ModelConfig
from bonsai.stages.networks.libraries import preprocess_of
from bonsai.stages.networks.matching import match_weights
from bonsai.stages.networks.weights_files import NamedTensors, find_weights, read_weights

STEPS = 600
"""Optimizer steps of the fine-tuning. A guess, as are the next three numbers: `benchmarks/finetune.py` compares lengths, with this rate and this warm-up."""
EPOCHS = (4, 30)
RATE = 0.2
"""Highest learning rate of the fine-tuning, as a share of the one that a network is trained with from the beginning."""
WARMUP = 0.2
"""Epochs in which that rate is reached: trained weights need little of it, and pruning begins early."""
CHANNELS = (1, 3)
"""Channels that images can be opened with."""


class Trained(NamedTuple):
    """Trained weights.

    Attributes:
        name: As `--weights` has it: a file, or ``pretrained``.
        found: The weights.
    """

    name: str
    found: NamedTensors

    @property
    def channels(self) -> int | None:
        """Channels of the images that the first layer takes, or None where that is not known."""
        first = next((tensor for tensor in self.found.tensors.values() if tensor.ndim == 4), torch.empty(0))
        return first.shape[1] if first.ndim == 4 and first.shape[1] in CHANNELS else None

    def fresh_layers(self, network: nn.Module, num_outputs: int) -> tuple[str, ...]:
        """Return the layers of a network that the weights are not for.

        Raises:
            ConfigError: They are of another network.
        """
        return match_weights(network, self.found.tensors, num_outputs).fresh


def read_trained(weights: str | None, model: str) -> Trained | None:
    """Return the weights that `--weights` names, or None where it names none.

    Raises:
        ConfigError: There is no such file, or it holds no weights; or the network's library has none.
    """
    if weights is None:
        return None
    config = ModelConfig(name=model, weights=weights)
    return Trained(weights, read_weights(find_weights(weights), config))


def size_of(trained: Trained, model: str, square: int | None) -> tuple[int, int]:
    """Return the height and width in pixels that a trained network is used to: its library's, or that of all images where they are squares of one size.

    Args:
        trained: The weights.
        model: Name of the network.
        square: Side of all images where they are squares of one size, else None.

    Raises:
        ConfigError: It is not known.
    """
    known = preprocess_of(ModelConfig(name=model)) if trained.name == PRETRAINED else None
    if known is not None:
        return known.size[0], known.size[-1]
    if square is not None:
        return square, square
    raise ConfigError(
        describe(
            "--weights: nothing tells the size of the images that the network was trained with",
            given=f"{trained.name}, and images of several sizes",
            allowed="--size N, the side in pixels, or HEIGHTxWIDTH; a network that sees another size than in its training loses accuracy",
            fix="add --size",
        )
    )


def epochs_of(steps: int) -> int:
    """Return the length of the fine-tuning, given the optimizer steps of an epoch."""
    return max(EPOCHS[0], min(ceil(STEPS / steps), EPOCHS[1]))
