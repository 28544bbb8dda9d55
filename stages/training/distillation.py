"""Learning from a trained network's logits beside the labels (Hinton, Vinyals, Dean, arXiv 1503.02531)."""

import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.networks.calling import logits_of
from bonsai.stages.training.config import SoftTargets


class Teacher:
    """A trained network whose logits are imitated.

    Args:
        network: Put into evaluation mode, on the device that the student trains on.
        config: Weight and temperature.
    """

    def __init__(self, network: nn.Module, config: SoftTargets) -> None:
        self._network = network.eval()
        self._config = config

    def loss(self, images: torch.Tensor, logits: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        """Return (1 - w) * hard + w * T^2 * KL(teacher / T || student / T).

        Args:
            images: (n, c, h, w).
            logits: (n, classes), the student's.
            hard: The loss of the labels.
        """
        weight, temperature = self._config.weight, self._config.temperature
        with torch.no_grad():
            target = functional.log_softmax(logits_of(self._network, images) / temperature, 1)
        soft = functional.kl_div(functional.log_softmax(logits / temperature, 1), target, reduction="batchmean", log_target=True)
        return (1 - weight) * hard + weight * temperature**2 * soft
