"""Learning from a trained network's outputs beside the targets."""

import torch
from torch import nn

from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.tasks.task import Learning
from bonsai.stages.training.config import SoftTargets


class Teacher:
    """A trained network whose outputs are imitated.

    Args:
        network: Put into evaluation mode, on the device that the student trains on.
        config: Weight and temperature.
    """

    def __init__(self, network: nn.Module, config: SoftTargets) -> None:
        self._network = network.eval()
        self._config = config

    def loss(self, images: torch.Tensor, found: torch.Tensor, hard: torch.Tensor, learning: Learning) -> torch.Tensor:
        """Return (1 - w) * hard + the task's loss of imitation, which has the weight w.

        Args:
            images: (n, c, h, w).
            found: The student's outputs.
            hard: The loss of the targets.
            learning: Learning of the task.
        """
        with torch.no_grad():
            shown = outputs_of(self._network, images)
        return (1 - self._config.weight) * hard + learning.imitate(found, shown, self._config)
