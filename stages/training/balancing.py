"""Weights of the loss with which rare classes count more."""

import numpy as np

from bonsai.stages.tasks.task import Task
from bonsai.stages.training.config import TrainConfig


def balanced(config: TrainConfig, task: Task, targets: np.ndarray, num_classes: int) -> TrainConfig:
    """Return a training with the weights that `training.balance` asks for.

    Args:
        config: The training.
        task: Computes the weights.
        targets: Of the training part, (n, ...).
        num_classes: Number of classes, labels or figures.
    """
    if config.balance != "weights":
        return config
    return config.model_copy(update={"loss": config.loss.model_copy(update={"weights": task.class_weights(targets, num_classes)})})
