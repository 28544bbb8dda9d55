"""How a segmentation is trained: by the cross-entropy of each pixel, with a share of the Dice loss."""

import torch

from bonsai.stages.tasks.losses import NO_CLASS, centred_noise, class_loss, dice_loss, pixel_rows, soften
from bonsai.stages.tasks.segmentation.judging import IGNORED
from bonsai.stages.tasks.shapes import probabilities, require_shape
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import SoftTargets, TrainConfig


class SegmentationLearning:
    """Training of a segmentation; outputs are logits (n, classes, h, w), targets (n, h, w) of class indices, 255 for pixels that do not count.

    Args:
        config: Has the loss and says how far labels are smoothed.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config, self._smoothing = config.loss, config.label_smoothing
        self._focal = config.loss.form_for("segmentation") == "focal"

    def loss(self, found: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of the pixels that count, with its share of the Dice loss; 0 where no pixel counts."""
        classes = targets.long()
        masks = classes.masked_fill(classes == IGNORED, NO_CLASS)
        if not (masks != NO_CLASS).any():
            return found.sum() * 0
        dice = self._config.dice
        pixels = class_loss(pixel_rows(found), masks.reshape(-1), self._config, focal=self._focal, smoothing=self._smoothing)
        return pixels if not dice else (1 - dice) * pixels + dice * dice_loss(found, masks)

    def imitate(self, student: torch.Tensor, teacher: torch.Tensor, how: SoftTargets) -> torch.Tensor:
        """Return w * T^2 * KL(teacher / T || student / T), the mean of the pixels."""
        return how.weight * soften(pixel_rows(student), pixel_rows(teacher), how.temperature)

    def noise(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        """Return the noise of logits less their mean for each pixel, which no softmax sees."""
        return centred_noise(found, expected, 1)

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        """Check that a network gives a map of logits for each class, of the images' size.

        Raises:
            ConfigError: It gives no floating-point tensor (samples, classes, h, w), or in evaluation probabilities.
        """
        fix = "let forward() return (images, classes, h, w) of the images' size; a smaller map: functional.interpolate(x, size=images.shape[2:])"
        shape = (samples, spec.num_classes, *spec.image_shape[1:])
        outputs = require_shape(found, shape, mode=mode, what="a map of logits for each class", fix=fix)
        if mode == "evaluation" and spec.num_classes > 1 and (outputs >= 0).all() and (outputs.float().sum(1) - 1).abs().max() < 1e-4:
            raise probabilities(given="maps that are positive and have the sum 1, in evaluation", activation="softmax")

    def example_targets(self, samples: int, spec: DataSpec) -> torch.Tensor:
        """Return one class after the other, pixel by pixel."""
        size = spec.image_shape[1:]
        return (torch.arange(samples * size[0] * size[1]) % spec.num_classes).reshape(samples, *size)
