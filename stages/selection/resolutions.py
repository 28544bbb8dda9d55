"""Chooses the size of the images that a pruned network takes: each size has a latency model and a best network of its own within the same budget."""

from collections.abc import Mapping

from bonsai.profiles.errors import BudgetError
from bonsai.stages.pruning.block_losses import BlockLosses
from bonsai.stages.pruning.resolution_losses import ResolutionLosses
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.resolution_records import Resolution, Size


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
