"""Losses that several tasks share."""

import torch
from torch.nn import functional

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.loss_config import LossConfig

NO_CLASS = -100
"""Class of the rows that do not count, as torch has it."""


def class_loss(logits: torch.Tensor, classes: torch.Tensor, config: LossConfig, *, focal: bool, smoothing: float) -> torch.Tensor:
    """Return the mean loss of one class a row.

    Args:
        logits: (rows, classes).
        classes: (rows,) int64; rows of class `NO_CLASS` do not count. Or (rows, classes), the share of each class, where batches are mixed.
        config: Weights and gamma.
        focal: Whether rows that are right already count less: (1 - p)^gamma of the cross-entropy, p the probability of the row's class.
        smoothing: Share of the target, 0-1, that is spread over all classes.
    """
    weights = weights_of(config, logits.shape[1], logits)
    if not focal:
        return functional.cross_entropy(logits, classes, weight=weights, ignore_index=NO_CLASS, label_smoothing=smoothing)
    if classes.ndim == 2:
        target = classes * (1 - smoothing) + smoothing / logits.shape[1]
        share = target if weights is None else target * weights
        return -(share * (1 - logits.softmax(1)) ** config.gamma * logits.log_softmax(1)).sum() / share.sum().clamp(min=1e-12)
    counted = classes != NO_CLASS
    shown = classes.where(counted, 0)
    probability = logits.softmax(1).gather(1, shown[:, None])[:, 0]
    own = functional.cross_entropy(logits, shown, reduction="none", label_smoothing=smoothing)
    share = counted.to(own.dtype) if weights is None else counted * weights[shown]
    return ((1 - probability) ** config.gamma * own * share).sum() / share.sum().clamp(min=1e-12)


def label_loss(logits: torch.Tensor, labels: torch.Tensor, config: LossConfig, *, focal: bool, smoothing: float) -> torch.Tensor:
    """Return the mean loss of labels that a sample has or has not.

    Args:
        logits: (n, labels).
        labels: (n, labels) of 0 and 1.
        config: Weights of the samples that have a label, and gamma.
        focal: As for `class_loss`.
        smoothing: Share of each target, 0-1, that is spread over both answers.
    """
    weights = weights_of(config, logits.shape[1], logits)
    soft = labels * (1 - smoothing) + smoothing / 2
    own = functional.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="none")
    if focal:
        chance = logits.sigmoid()
        own = own * (labels * (1 - chance) + (1 - labels) * chance) ** config.gamma
    return own.mean()


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return 1 minus the mean soft Dice coefficient of the classes in a batch (Milletari et al., arXiv 1606.04797).

    Args:
        logits: (n, classes, h, w).
        masks: (n, h, w) int64; pixels of class `NO_CLASS` do not count.
    """
    counted = masks != NO_CLASS
    chances = logits.softmax(1) * counted[:, None]
    wanted = functional.one_hot(masks.where(counted, 0), logits.shape[1]).movedim(-1, 1) * counted[:, None]
    over = (0, 2, 3)
    both, sizes = (chances * wanted).sum(over), (chances.sum(over) + wanted.sum(over))
    return 1 - ((2 * both + 1) / (sizes + 1)).mean()


def soften(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 * KL(teacher / T || student / T) of rows of logits (rows, classes), the mean of the rows (Hinton et al., arXiv 1503.02531)."""
    target = functional.log_softmax(teacher / temperature, 1)
    return temperature**2 * functional.kl_div(functional.log_softmax(student / temperature, 1), target, reduction="batchmean", log_target=True)


def centred_noise(found: torch.Tensor, expected: torch.Tensor, dim: int) -> float:
    """Return the squared error of logits over the square of the expected ones, both less their mean along a dimension."""
    centred, reference = (logits - logits.mean(dim, keepdim=True) for logits in (found, expected))
    return float((centred - reference).square().mean() / reference.square().mean())


def pixel_rows(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (n, classes, h, w) as rows (n * h * w, classes), whose losses are deterministic on a GPU too."""
    return maps.movedim(1, -1).reshape(-1, maps.shape[1])


def weights_of(config: LossConfig, number: int, like: torch.Tensor) -> torch.Tensor | None:
    """Return the weights of classes, labels or figures; None where all weigh 1.

    Raises:
        ConfigError: There are not as many as outputs.
    """
    if not config.weights:
        return None
    if len(config.weights) != number:
        problem, fix = "training.loss.weights do not fit the classes", "write one number for each class, in their order, or leave them out"
        raise ConfigError(describe(problem, given=f"{len(config.weights)} weights", allowed=f"{number} weights", fix=fix))
    return torch.tensor(config.weights, device=like.device)
