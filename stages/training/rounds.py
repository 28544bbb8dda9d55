"""A recovery in rounds: what is left of the learning-rate cycle, stretched, and then shorter rounds while they help."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from bonsai.stages.networks.checkpoint import History
from bonsai.stages.pruning.recovery import Length
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.progress import say
from bonsai.stages.training.rates import half_cosine, stretched_rate, warmed

RESTART = 0.3
"""Learning rate at which a further round starts, over the cycle's highest; a warm restart as in SGDR (arXiv 1608.03983)."""
STOP, KEPT, WEIGHTS = "stop", "kept", "weights."


class Rounds:
    """Decides at the end of a round whether another one follows, and keeps the weights of the best round.

    Every round ends at a learning rate of zero, so that its network can be judged and shipped. What is decided depends on the learning curve alone.

    Args:
        start: Step of the last cut.
        per_epoch: Optimizer steps of an epoch.
        training: The learning-rate cycle.
        length: How long the rounds may be.
        metric: The task's metric.
        goal: Validation figure that the gates ask for; None if they ask for none.
        warmup: Steps over which the learning rate rises in the first round.

    Attributes:
        stop: Step at which the present round ends, or at which the last one ended.
        kept: Step at which the best round ended; its weights are in `weights`.
        ended: Why no other round followed; None while that is open.
    """

    def __init__(self, start: int, per_epoch: int, training: TrainConfig, length: Length, metric: Metric, goal: float | None, *, warmup: int = 0) -> None:
        self._start, self._per_epoch, self._training, self._length, self._metric, self._goal = start, per_epoch, training, length, metric, goal
        self.stop = start + length.least * per_epoch
        steps = self.stop - start
        self._first = warmed(lambda step: stretched_rate(step, start, steps, training, per_epoch), start, warmup)
        self.kept = 0
        self.weights: dict[str, torch.Tensor] = {}
        self.ended: Literal["goal", "gain", "most"] | None = None

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        first, span = self._start + self._length.least * self._per_epoch, self._length.round * self._per_epoch
        if step < first:
            return self._first(step)
        begun = first + (step - first) // span * span
        last = self._start + self._length.most * self._per_epoch
        return half_cosine(RESTART * self._training.lr, step - begun, min(span, last - begun))

    def look(self, network: nn.Module, history: Sequence[History]) -> None:
        """Decide at `stop`; where another round follows, `stop` moves to its end.

        Args:
            network: The network that would be shipped.
            history: The learning curve, with a figure for every round's end.
        """
        reached = {line.step: self._metric.merit(line.validation) for line in history if line.phase == "branch"}
        gained = not self.weights or reached[self.stop] > reached[self.kept]
        if gained:
            self.kept, self.weights = self.stop, {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        epochs = (self.stop - self._start) // self._per_epoch
        if self._goal is None or reached[self.kept] >= self._metric.merit(self._goal):
            self.ended = "goal"
        elif not gained:
            self.ended = "gain"
        elif epochs >= self._length.most:
            self.ended = "most"
        else:
            longer = min(epochs + self._length.round, self._length.most)
            self.stop = self._start + longer * self._per_epoch
            figures = f"validation {self._metric.label} {self._metric.written(self._metric.merit(reached[self.kept]))}"
            say(f"recovery: {figures} after {epochs} epochs, the gates ask for {self._metric.written(self._goal)}: it goes on to {longer}")

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that `restore` needs."""
        return {STOP: torch.tensor(self.stop), KEPT: torch.tensor(self.kept), **{WEIGHTS + name: value for name, value in self.weights.items()}}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on in the round that `state` was taken in."""
        self.stop, self.kept = int(tensors[STOP]), int(tensors[KEPT])
        self.weights = {name.removeprefix(WEIGHTS): value for name, value in tensors.items() if name.startswith(WEIGHTS)}
