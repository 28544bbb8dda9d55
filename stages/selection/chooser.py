"""Chooses widths for one device and budget, from scores of channels.

    chooser = Chooser(groups, operators, options, latency, limit_ms, config)
    fit = chooser.fit(scores, measure=time_untrained)

Nothing here runs a network. A caller that can time one passes a function as `measure`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bonsai.stages.pruning.block_losses import BlockLosses
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.limits import least_channels, shares
from bonsai.stages.pruning.scores import Scores, normalise
from bonsai.stages.selection.bound import smallest_latency
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.loop import Fit, Measured, fit_widths
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.problem import Values
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.selection.search import Selection, select_widths
from bonsai.stages.selection.subnetwork import Ranking
from bonsai.stages.selection.terms import Options
from bonsai.stages.selection.values import values_of, worth_of_loss


@dataclass(frozen=True)
class Chooser:
    """Chooses widths within one latency budget.

    Scores are (width,) float32 by group of the dense network, as the criterion computes them. A more important channel has a larger score.

    Attributes:
        groups: Groups that may be pruned.
        operators: Operators of the dense network. The value of a group depends on how many use it.
        options: Widths in channels that each group may keep on the device.
        latency: Predicts a network's milliseconds from its widths, at the target's precision.
        limit_ms: The budget in milliseconds.
        config: Floors, margin and tolerance, and the value that is maximised.
    """

    groups: tuple[Group, ...]
    operators: tuple[Operator, ...]
    options: Options
    latency: NetworkLatency
    limit_ms: float
    config: PruneConfig

    @cached_property
    def floor_ms(self) -> float:
        """Predicted milliseconds with every group at its narrowest."""
        return smallest_latency(self.latency.terms(self.options))[0]

    def keep(self, scores: Scores) -> Kept:
        """Return the channels that the budget would keep now, for EPI. Nothing is timed, and widths are not rounded to the device's step."""
        return self._ranking.keep(self._comparable(scores))

    def fit(
        self,
        scores: Scores,
        measure: Callable[[Widths], Measured] | None = None,
        *,
        losses: BlockLosses | None = None,
        correction: float = 1.0,
        doubt: float = 1.0,
    ) -> Fit:
        """Return the widths of most value within the budget.

        Args:
            scores: Scores of the channels now.
            measure: Times an untrained network of given widths; None trusts the prediction.
            losses: What the absence of residual blocks costs now; without it, or where it tells nothing, none is left out.
            correction: Measured over predicted latency, from a finished engine.
            doubt: Upper end over latency of a network that nobody has timed yet.

        Raises:
            BudgetError: Even the narrowest network is above the budget.
        """
        values, options = self._problem(scores, losses)
        return fit_widths(values, options, self.latency, self.limit_ms, self.config, measure, correction=correction, doubt=doubt)

    def select(self, scores: Scores, losses: BlockLosses | None = None) -> Selection:
        """Return the widths of most value within the budget by the prediction alone; arguments as for `fit`.

        Raises:
            BudgetError: Even the narrowest network is above the budget.
        """
        values, options = self._problem(scores, losses)
        return select_widths(values, options, self.latency, self.limit_ms * (1 - self.config.margin))

    def worth_of_loss(self, scores: Scores, halved: Mapping[str, float]) -> float:
        """Return the value that goes with a unit of loss.

        Args:
            scores: As for `fit`.
            halved: Increase of the loss without half of a group's channels, by group.
        """
        halves = {group.name: (group.half, group.width) for group in self.groups}  # whatever their floors and the device's step are
        return worth_of_loss(self._values(scores, halves, None), halved)

    def reselection(self, limit_ms: float) -> Reselection:
        """Return a record for choosing again between two cuts, within `limit_ms` predicted milliseconds or, if that is too small, `floor_ms`."""
        return Reselection.within(max(limit_ms, self.floor_ms), self.latency, self.options, self.config.value, self.config.normalisation)

    @cached_property
    def _ranking(self) -> Ranking:
        floors = shares(self.groups, self.config.floors, self.config.floor, "prune.floors")
        least = {group.name: least_channels(group, floors[group.name]) for group in self.groups}
        return Ranking(self.latency, self._all_there, self.limit_ms * (1 - self.config.margin), least)

    @cached_property
    def _all_there(self) -> Options:
        """The widths with which no block is left out."""
        return {group: tuple(width for width in widths if width) for group, widths in self.options.items()}

    def _problem(self, scores: Scores, losses: BlockLosses | None) -> tuple[Values, Options]:
        """Return the values, and the widths to choose from."""
        usable = losses if losses is not None and losses.tell else None
        options = self.options if usable else self._all_there
        return self._values(scores, options, usable), options

    def _comparable(self, scores: Scores) -> Scores:
        found = normalise(scores, self.groups, self.config.normalisation)
        return {group: found[group] for group in self.options}

    def _values(self, scores: Scores, options: Options, losses: BlockLosses | None) -> Values:
        by_channel = {group: vector.tolist() for group, vector in self._comparable(scores).items()}
        return values_of(self.config.value, by_channel, options, self.operators, losses)
