"""Chooses the size of the images that a pruned network takes: each size has a latency model and a best network of its own within the same budget."""

from collections.abc import Mapping, Sequence

from bonsai.profiles.errors import BudgetError
from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.block_losses import BlockLosses
from bonsai.stages.pruning.resolution_losses import ResolutionLosses
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.selection.chooser import Chooser

Size = tuple[int, int]
"""Height and width in pixels."""


class Resolution(Record):
    """One size of images, and what the best network for it was predicted to be worth.

    Attributes:
        size: Height and width in pixels.
        loss: Increase of the validation loss with images of this size; 0 for the full one.
        value: Value of the best widths within the budget, less that of the loss; None if no widths are within it.
        known: Whether the loss tells what a size is worth. If not, the value is that of the widths alone, and the largest size within the budget is taken.
        chosen: Whether the pruned network takes this size.
    """

    size: Size
    loss: float
    value: float | None
    known: bool
    chosen: bool

    @property
    def cells(self) -> tuple[str, str, str]:
        """Size, rise of the loss and value, for a table."""
        value = "cannot meet the budget" if self.value is None else f"{self.value:.4g}" if self.known else "not known"
        return "x".join(map(str, self.size)), f"{self.loss:+.3g}", value

    @property
    def sentence(self) -> str:
        """The same in words."""
        size, loss, value = self.cells
        if self.value is None:
            return f"{size} {value}"
        return f"{size} (loss {loss}, {f'predicted value {value}' if self.known else 'value not known'})"


def choose_resolution(choosers: Mapping[Size, Chooser], scores: Scores, losses: ResolutionLosses, blocks: BlockLosses | None = None) -> tuple[Resolution, ...]:
    """Return all sizes, of which the one with the most value is chosen.

    The increase of the loss was measured with each smaller size, and without half of each group's channels. The halves tell how much value a unit of loss is.

    Args:
        choosers: By size, the full one first and the smallest last: all for the same groups and the same budget in milliseconds.
        scores: Scores of the channels now.
        losses: What each smaller size costs.
        blocks: What the absence of residual blocks costs.

    Raises:
        BudgetError: No size is within the budget.
    """
    rises = {found.size: max(found.loss, 0.0) for found in losses.sizes}
    values: dict[Size, float] = {}
    refused: list[BudgetError] = []
    for size, chooser in choosers.items():
        try:
            selection = chooser.select(scores, blocks)
        except BudgetError as error:
            refused.append(error)
            continue
        values[size] = selection.value - (rises.get(size, 0.0) * chooser.worth_of_loss(scores, losses.halved) if losses.tell else 0.0)
    if not values:
        raise refused[0]
    best = max(values, key=lambda size: values[size]) if losses.tell else next(iter(values))
    loss = {found.size: found.loss for found in losses.sizes}
    return tuple(Resolution(size=size, loss=loss.get(size, 0.0), value=values.get(size), known=losses.tell, chosen=size == best) for size in choosers)


def describe_resolutions(resolutions: Sequence[Resolution]) -> str:
    """Return which size was chosen, and what all of them were predicted to be worth; an empty text where there was no choice."""
    if not resolutions:
        return ""
    (chosen,) = ("x".join(map(str, each.size)) for each in resolutions if each.chosen)
    return f"input resolution {chosen}, of {'; '.join(each.sentence for each in resolutions)}"
