"""Progress for people: one logger that the command line and Prefect show in their own ways."""

import logging

logger = logging.getLogger("bonsai")


def report(what: str, *, done: int, total: int, unit: str = "", **figures: float) -> None:
    """Log how far a long step is.

    Args:
        what: The step.
        done: Units done.
        total: Units in all.
        unit: What is counted.
        figures: Named figures, shown with four digits.
    """
    shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
    logger.info("%s  %s%d/%d%s", what, f"{unit} " if unit else "", done, total, shown)


def say(message: str) -> None:
    """Log one line."""
    logger.info(message)
