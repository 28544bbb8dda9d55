"""How a network of several labels is trained: by binary cross-entropy for each label."""

import torch
from torch.nn import functional

from bonsai.stages.tasks.losses import centred_noise, label_loss
from bonsai.stages.tasks.shapes import probabilities, require_shape
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import SoftTargets, TrainConfig


class MultiLabelLearning:
    """Training of a network of several labels; outputs are logits (n, labels), targets (n, labels) float32 of 0 and 1.

    Args:
        config: Has the loss and says how far labels are smoothed.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config, self._smoothing = config.loss, config.label_smoothing
        self._focal = config.loss.form_for("multi_label") == "focal"

    def loss(self, found: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean of the binary cross-entropies, or of the focal losses."""
        return label_loss(found, targets, self._config, focal=self._focal, smoothing=self._smoothing)

    def imitate(self, student: torch.Tensor, teacher: torch.Tensor, how: SoftTargets) -> torch.Tensor:
        """Return w * T^2 * KL between both answers of each label, the mean of the labels."""
        temperature = how.temperature
        wanted = (teacher / temperature).sigmoid()
        least, found = (functional.binary_cross_entropy_with_logits(logits / temperature, wanted) for logits in (teacher, student))
        return how.weight * temperature**2 * (found - least)

    def noise(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        """Return the noise of logits less their mean for each label, which changes no ranking."""
        return centred_noise(found, expected, 0)

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        """Check that a network gives a logit for each label.

        Raises:
            ConfigError: It gives no floating-point tensor (samples, labels), or in evaluation probabilities.
        """
        outputs = require_shape(found, (samples, spec.num_classes), mode=mode, what="a logit for each label", fix="let forward() return (images, labels)")
        if mode == "evaluation" and ((outputs >= 0) & (outputs <= 1)).all() and (outputs > 0).any():
            raise probabilities(given="outputs between 0 and 1, in evaluation", activation="sigmoid")

    def example_targets(self, samples: int, spec: DataSpec) -> torch.Tensor:
        """Return labels of which every second one is there."""
        return (torch.arange(samples * spec.num_classes) % 2).reshape(samples, spec.num_classes).float()
