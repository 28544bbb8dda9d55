"""Progress for people: one logger that the command line and Prefect show in their own ways."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

logger = logging.getLogger("bonsai")


class Progress(NamedTuple):
    """How far a long step is; stands in the log record as `progress`, for those who show more than lines.

    Attributes:
        what: The step.
        first: Units that were done before it.
        done: Units done.
        last: Units at its end.
        unit: Unit that is counted.
        figures: Named figures of this moment.
    """

    what: str
    first: int
    done: int
    last: int
    unit: str
    figures: dict[str, float]

    @property
    def kind(self) -> str:
        """The first word of `what`, which the parts of one long step share."""
        return self.what.partition(" ")[0]

    @property
    def fraction(self) -> float:
        """Share of the step that is done, 0-1."""
        return (self.done - self.first) / max(self.last - self.first, 1)


def report(what: str, *, done: int, total: int, first: int = 0, unit: str = "", **figures: float) -> None:
    """Log how far a long step is.

    Args:
        what: The step.
        done: Units done.
        total: Units in all.
        first: Units that were done before the step began.
        unit: Unit that is counted.
        figures: Named figures, shown with four digits.
    """
    progress = Progress(what.strip(), first, done, total, unit, figures)
    shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
    logger.info("%s  %s%d/%d%s", what, f"{unit} " if unit else "", done, total, shown, extra={"progress": progress})


def say(message: str) -> None:
    """Log one line."""
    logger.info(message)


@contextmanager
def silence() -> Iterator[None]:
    """Keep what the stages say of their progress to themselves."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
