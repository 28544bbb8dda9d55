"""A figure with its interval; apart from `process_interval.py`, which finds it by SciPy: what reads a record waits for no SciPy."""

from bonsai.profiles.located_yaml import Record


class Interval(Record):
    """A figure with its interval, in the figure's unit.

    Attributes:
        found: Geometric mean over the processes.
        low: Lower end of the interval (95 %, over all looks).
        high: Its upper end.
        processes: How many were timed.
        spread: Relative standard deviation between processes that the interval rests on.
    """

    found: float
    low: float
    high: float
    processes: int
    spread: float

    @property
    def sentence(self) -> str:
        """The interval, in a few words."""
        return f"95 % interval {self.low:.4g} to {self.high:.4g} from {self.processes} processes"
