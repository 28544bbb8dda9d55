"""Sizes of images that a pruned network may take, as they are told. This file needs no torch."""

from collections.abc import Sequence

from bonsai.profiles.located_yaml import Record

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


def describe_resolutions(resolutions: Sequence[Resolution]) -> str:
    """Return which size was chosen, and what all of them were predicted to be worth; an empty text where there was no choice."""
    if not resolutions:
        return ""
    (chosen,) = ("x".join(map(str, each.size)) for each in resolutions if each.chosen)
    return f"input resolution {chosen}, of {'; '.join(each.sentence for each in resolutions)}"
