"""The figure that a task is judged by, and how it is written for people."""

from typing import Literal

from bonsai.profiles.source import Record


class Metric(Record):
    """One figure over all samples: the gates', the learning curve's and the report's.

    Attributes:
        name: Key under which records, tables and trackers keep the figure.
        label: What sentences and tables call it.
        unit: ``%`` for a ratio 0-1 that people read in per cent; else that of the figure, or nothing.
        direction: Which values are the better ones.
        best: The best value that there is.
    """

    name: str
    label: str
    unit: str = ""
    direction: Literal["higher", "lower"]
    best: float

    def merit(self, value: float) -> float:
        """Return a figure that is the larger, the better the value is."""
        return value if self.direction == "higher" else -value

    def drop(self, before: float, after: float) -> float:
        """Return by how much the metric got worse."""
        return self.merit(before) - self.merit(after)

    @property
    def scale(self) -> int:
        """What a value is multiplied by where people read it."""
        return 100 if self.unit == "%" else 1

    @property
    def axis(self) -> str:
        """What stands beside an axis."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def written(self, value: float) -> str:
        """Return a value for people."""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4g} {self.unit}".rstrip()

    def span(self, low: float, high: float, between: str) -> str:
        """Return both ends of an interval without their unit."""
        return between.join(f"{end * 100:.1f}" if self.unit == "%" else f"{end:.4g}" for end in (low, high))
