"""Prints the lines of progress. It imports nothing heavy, because `bonsai verify` must work without torch."""

import logging
import os
import time

from rich.console import Console

started = time.monotonic()
SILENT = logging.CRITICAL + 1


class ProgressHandler(logging.Handler):
    """Prints each line of progress with the minutes and seconds since the start, on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._console = _Lines(stderr=True, highlight=False, soft_wrap=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        try:
            self._console.print(f"{minutes:3d}:{seconds:02d}  {record.getMessage()}", markup=False)
        except OSError:  # the disk that the lines go to is full: the work goes on without them
            self.setLevel(SILENT)


class _Lines(Console):
    """Lines whose reader may go: the work goes on without them, where Rich's own console ends the process."""

    def on_broken_pipe(self) -> None:
        """Print nothing any more."""
        self.quiet = True


def show_progress(*, plain: bool = False) -> None:
    """Send Bonsai's progress to standard error.

    Args:
        plain: Whether to leave out colours and all else that moves on a terminal, here and in child processes.
    """
    if plain:
        for forced in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            os.environ.pop(forced, None)
        os.environ.update(NO_COLOR="1", TERM="dumb")
    logger = logging.getLogger("bonsai")
    logger.setLevel(logging.INFO)
    logger.handlers = [ProgressHandler()]
    logger.propagate = False
