"""The learning rate as a function of the optimizer step."""

import math
from collections.abc import Callable

from bonsai.stages.training.config import TrainConfig

Rate = Callable[[int], float]


def learning_rate(step: float, config: TrainConfig, per_epoch: int) -> float:
    """Return the learning rate of a step, or between two: linear warm-up, then half a cosine down to zero at the cycle's end."""
    warmup, total = config.warmup_epochs * per_epoch, config.epochs * per_epoch
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return half_cosine(config.lr, step - warmup, max(total - warmup, 1))


def stretched_rate(step: int, start: int, steps: int, config: TrainConfig, per_epoch: int) -> float:
    """Return the learning rate of a step where what is left of the cycle at `start` is stretched or shrunk to so many steps."""
    left = config.epochs * per_epoch - start
    return learning_rate(start + (step - start) * left / steps, config, per_epoch)


def half_cosine(highest: float, step: float, steps: float) -> float:
    """Return the learning rate at `step` of a fall from `highest` to zero over `steps`."""
    return highest * 0.5 * (1 + math.cos(math.pi * step / steps))


def warmed(rate: Rate, start: int, steps: int) -> Rate:
    """Return a rate that rises over so many steps from `start` on to what it would be; itself for none."""
    return (lambda step: rate(step) * min(1.0, (step - start + 1) / steps)) if steps else rate
