"""How long a recovery takes whose length is its own (`prune.recover.epochs: auto`), and what is told of it."""

from math import ceil
from typing import Literal, NamedTuple

from bonsai.profiles.located_yaml import Record
from bonsai.stages.tasks.metric import Metric

FINETUNE = 0.5
"""Fine-tuning after a whole cycle, in cycles, that the least length is compared with; as in `benchmarks/moments.py`."""
LEAST_SHARE = 0.2
"""Smallest share of a dense step that a pruned one is taken to cost: loading images and starting operators cost the same for any width."""
ROUNDS = 4
"""A further round is the least length divided by this."""
ROOM = 0.5
"""Fraction of `gates.max_drop` that may be used in the recovery. The interval of the verdict and quantisation need the rest."""


class Goal(Record):
    """What a profile's gates ask of the validation figure.

    Attributes:
        max_drop: As in the gates; None where there is no dense reference to compare with.
        min_metric: As in the gates.
    """

    max_drop: float | None
    min_metric: float | None

    def figure(self, metric: Metric, dense: float | None) -> float | None:
        """Return the figure to reach: both gates, with `ROOM` of the drop; None if neither asks for anything.

        Args:
            metric: The task's metric.
            dense: The reference's figure on the validation split.
        """
        merits = [metric.merit(dense) - ROOM * self.max_drop] if dense is not None and self.max_drop is not None else []
        merits += [metric.merit(self.min_metric)] if self.min_metric is not None else []
        return metric.merit(max(merits)) if merits else None


class Length(NamedTuple):
    """How long a recovery may be, in epochs.

    Attributes:
        least: Length of the first round.
        most: Length at which it ends in any case.
        share: Cost of a pruned step over a dense one.
        before: Dense epochs before the last cut.
    """

    least: int
    most: int
    share: float
    before: float

    @property
    def round(self) -> int:
        """Epochs of a further round."""
        return max(1, round(self.least / ROUNDS))

    def cost(self, epochs: int) -> float:
        """Return what the way to a network costs that was trained for so many epochs after the cut, in dense epochs."""
        return self.before + self.share * epochs


def length_of(cycle: int, before: float, share: float, most: int | None) -> Length:
    """Return how long a recovery is.

    The least length solves before + share * least = cycle + share * FINETUNE * cycle: cut and recovery cost what a whole cycle and its fine-tuning would.

    Args:
        cycle: Epochs of the learning-rate cycle.
        before: Epochs before the last cut.
        share: Multiply-accumulates of the pruned network over those of the dense one.
        most: `prune.recover.most`.
    """
    cost = min(max(share, LEAST_SHARE), 1.0)
    least = max(1, ceil(FINETUNE * cycle + (cycle - before) / cost))
    longest = most or 2 * least
    return Length(min(least, longest), longest, cost, before)


class Recovery(Record):
    """What a recovery of a length of its own took, and why it ended.

    Attributes:
        epochs: Epochs after the last cut.
        kept: Of these, the epochs up to the end of the round with the best validation figure, whose weights are kept.
        least: Length of the first round.
        most: Length at which it would have ended in any case.
        cost: Dense epochs that the way to the pruned network costs, from the first step on, by multiply-accumulates.
        plain_cost: Dense epochs of a whole cycle and a fine-tuning of the pruned network for half a cycle.
        goal: Validation figure that the gates ask for; None if they ask for none.
        reached: Validation figure of the weights that are kept.
        ended: ``goal``: it was reached; ``gain``: the last round gained nothing; ``most``: the length was used up.
    """

    epochs: int
    kept: int
    least: int
    most: int
    cost: float
    plain_cost: float
    goal: float | None
    reached: float
    ended: Literal["goal", "gain", "most"]

    def sentence(self, metric: Metric) -> str:
        """Return it in a few sentences."""
        why = {
            "goal": "no gate asks for more" if self.goal is None else "the validation figure reached what the gates ask for",
            "gain": f"the last {self.epochs - self.kept} epochs gained nothing, and were dropped",
            "most": f"it had its largest length ({self.most})",
        }[self.ended]
        goal = "" if self.goal is None else f" of {metric.written(self.goal)}"
        return (
            f"Recovery took {self.epochs} epochs after the last cut (at least {self.least}) and ended because {why}: "
            f"validation {metric.label} {metric.written(self.reached)}{goal}. The way to the pruned network costs {self.cost:.1f} dense epochs by "
            f"multiply-accumulates; training, pruning and half a cycle of fine-tuning would cost {self.plain_cost:.1f}."
        )
