"""The cuts of one removal, one after another: how far each goes, and which channels it leaves."""

from collections.abc import Callable
from dataclasses import dataclass

from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.schedule import ScheduleConfig, widths_after
from bonsai.stages.pruning.scores import Scores, best_channels

Choose = Callable[[Scores, tuple[Group, ...]], Widths]
"""Returns the final widths, given the scores of the channels that are left."""


@dataclass
class Cuts:
    """A removal on its way.

    Attributes:
        schedule: Number of cuts, and whether channels are masked before they are cut.
        dense: Channels per group before the first cut.
        final: Channels to keep per group in the end.
        choose: Chooses the final widths again before each later cut; None keeps them.
        done: Cuts so far.
    """

    schedule: ScheduleConfig
    dense: Widths
    final: Widths
    choose: Choose | None = None
    done: int = 0

    @property
    def finished(self) -> bool:
        """Whether there is no further cut."""
        return self.done >= self.schedule.steps

    @property
    def masks(self) -> bool:
        """Whether the latest cut masks its channels, so that they may come back."""
        return self.schedule.soft and not self.finished

    def advance(self, scores: Scores, groups: tuple[Group, ...]) -> Kept:
        """Count a cut, and return the channels that it keeps.

        Args:
            scores: Scores of the channels that are left.
            groups: Those channels.
        """
        if self.choose and self.done:
            self.final = self.choose(scores, groups)
        self.done += 1
        left = {group.name for group in groups}
        return best_channels(scores, {name: width for name, width in widths_after(self.done, self.dense, self.final, self.schedule).items() if name in left})
