"""How a classifier is trained: by cross-entropy, and beside a teacher's softened logits (Hinton, Vinyals, Dean, arXiv 1503.02531)."""

import torch

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.losses import centred_noise, class_loss, soften
from bonsai.stages.tasks.shapes import probabilities
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import SoftTargets, TrainConfig


class ClassificationLearning:
    """Training of a classifier; outputs are logits (n, classes), targets (n,) int64.

    Args:
        config: Has the loss and says how far labels are smoothed.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config, self._smoothing = config.loss, config.label_smoothing
        self._focal = config.loss.form_for("classification") == "focal"

    def loss(self, found: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy or the focal loss."""
        return class_loss(found, targets, self._config, focal=self._focal, smoothing=self._smoothing)

    def imitate(self, student: torch.Tensor, teacher: torch.Tensor, how: SoftTargets) -> torch.Tensor:
        """Return w * T^2 * KL(teacher / T || student / T)."""
        return how.weight * soften(student, teacher, how.temperature)

    def noise(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        """Return the noise of logits less their mean for each sample, which no softmax sees.

        It needs no labels and does not jump where a sample changes its class (its inverse is the measure of Pandey et al., arXiv 2302.05397).
        """
        return centred_noise(found, expected, 1)

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        """Check that a network gives logits.

        Raises:
            ConfigError: It gives no floating-point tensor (samples, classes), or in evaluation probabilities.
        """
        classes = spec.num_classes
        if not isinstance(found, torch.Tensor) or found.shape != (samples, classes) or not found.is_floating_point():
            shown = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(
                describe(
                    "the network gives no logits",
                    given=f"{shown} for {'two' if samples == 2 else samples} images, in {mode}",
                    allowed=f"({samples}, {classes}) of floating point",
                    fix="let forward() return (images, classes), in training too (torchvision: aux_logits=False)",
                )
            )
        if mode == "evaluation" and classes > 1 and (found >= 0).all() and (found.float().sum(1) - 1).abs().max() < 1e-4:
            raise probabilities(given="outputs that are positive and have the sum 1, in evaluation", activation="softmax")

    def example_targets(self, samples: int, spec: DataSpec) -> torch.Tensor:
        """Return one class after the other."""
        return torch.arange(samples) % spec.num_classes
