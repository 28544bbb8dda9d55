"""How a regression is trained: by squared, absolute or Huber errors."""

import torch
from torch.nn import functional

from bonsai.stages.tasks.losses import weights_of
from bonsai.stages.tasks.shapes import require_shape
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import SoftTargets, TrainConfig


class RegressionLearning:
    """Training of a regression; outputs and targets are figures (n, k) float32 in the same unit.

    Args:
        config: Has the loss.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config.loss
        self._form = config.loss.form_for("regression")

    def loss(self, found: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean squared, absolute or Huber error; weighted, the mean of the weighted ones."""
        if self._form == "absolute":
            errors = (found - targets).abs()
        elif self._form == "huber":
            errors = functional.huber_loss(found, targets, reduction="none", delta=self._config.delta)
        else:
            errors = (found - targets).square()
        weights = weights_of(self._config, found.shape[1], found)
        return (errors if weights is None else errors * weights).mean()

    def imitate(self, student: torch.Tensor, teacher: torch.Tensor, how: SoftTargets) -> torch.Tensor:
        """Return w times the loss with the teacher's outputs as targets; there is nothing to soften."""
        return how.weight * self.loss(student, teacher)

    def noise(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        """Return the squared error over the variance of the expected figures between the samples, the mean of the figures."""
        spread = (expected - expected.mean(0)).square().mean(0).clamp(min=1e-12)
        return float(((found - expected).square().mean(0) / spread).mean())

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        """Check that a network gives the figures.

        Raises:
            ConfigError: It gives no floating-point tensor (samples, figures).
        """
        fix = "let forward() return (images, figures), with one figure too: x[:, None]"
        require_shape(found, (samples, spec.num_classes), mode=mode, what="a number for each figure", fix=fix)

    def example_targets(self, samples: int, spec: DataSpec) -> torch.Tensor:
        """Return zeros."""
        return torch.zeros(samples, spec.num_classes)
