"""The figure that a task is judged by, and how it is written for people."""

from typing import Literal

from bonsai.profiles.located_yaml import Record


class Metric(Record):
    """The figure that a task is judged by. Gates, learning curves and reports show it.

    Attributes:
        name: Key of the figure in records, tables and trackers.
        label: Name of the figure in sentences and tables.
        unit: ``%`` for a ratio 0-1 that is shown in per cent; else the figure's own unit, or nothing.
        direction: Whether higher or lower values are better.
        best: The best possible value.
    """

    name: str
    label: str
    unit: str = ""
    direction: Literal["higher", "lower"]
    best: float

    def merit(self, value: float) -> float:
        """Return a figure that is larger for better values."""
        return value if self.direction == "higher" else -value

    def drop(self, before: float, after: float) -> float:
        """Return by how much the metric got worse."""
        return self.merit(before) - self.merit(after)

    @property
    def scale(self) -> int:
        """The factor by which a value is multiplied for display."""
        return 100 if self.unit == "%" else 1

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def written(self, value: float) -> str:
        """Return a value as people read it."""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4g} {self.unit}".rstrip()

    def span(self, low: float, high: float, between: str) -> str:
        """Return both ends of an interval without their unit."""
        return between.join(f"{end * 100:.1f}" if self.unit == "%" else f"{end:.4g}" for end in (low, high))
