"""What the stages decided on the way to an engine."""

from profiles.source import Record
from stages.pruning.epi import Trigger
from stages.selection.loop import Fit


class Decisions(Record):
    """How an engine came about, for its model card and report.

    Attributes:
        recipe: The recipe, whole, as JSON.
        trigger: When the branch left the trunk.
        criterion: By what channels were ranked.
        fit: Which widths fit the budget, chosen at the trigger.
        kept_widths: Channels per group that were kept: other ones where they were chosen again between cuts.
        dense_widths: Channels per group of the dense network.
        table_source: Whether the latency table was measured or estimated.
    """

    recipe_name: str
    recipe: str
    trigger: Trigger
    criterion: str
    fit: Fit
    dense_widths: dict[str, int]
    kept_widths: dict[str, int]
    table_source: str
