"""A comparison that several tests look at: two targets that nothing is timed for, and two that fail."""

import logging
from pathlib import Path
from typing import NamedTuple

from bonsai.pipeline.compare.comparing import compare
from bonsai.pipeline.compare.comparison import Comparison

CONFIGS = Path(__file__).parent / "integration" / "configs"
SETTINGS = {"training.epochs": 2, "training.threads": 1}


class Compared(NamedTuple):
    """The comparison, its store, and the lines of its log."""

    comparison: Comparison
    store: Path
    log: list[str]


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def config(name: str) -> str:
    return str(CONFIGS / f"{name}.yaml")


def compare_tiny(store: Path) -> Compared:
    logger, lines = logging.getLogger("bonsai"), Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        profiles = [config(f"tiny-{name}") for name in ("wide", "hopeless", "away", "narrow")]
        return Compared(compare(config("tiny"), profiles, SETTINGS, store=store, at_once=2), store, lines.lines)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
