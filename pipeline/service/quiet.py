"""Prefect's own log lines that tell nobody anything."""

import logging

OBSERVERS = ("FlowRunCancellingObserver", "FlowRunSuspendingObserver")


class Quiet(logging.Filter):
    """Drops what Prefect says every two seconds while a run waits, and the tracebacks of its observers after the server was away."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take an observer's traceback away; return whether the line is logged."""
        message = record.getMessage()
        if record.name.removeprefix("prefect.") in OBSERVERS:
            record.exc_info = None
        ended = record.name == "asyncio" and any(name in message for name in OBSERVERS)
        return not ended and "skipped (at capacity)" not in message


def quieten() -> None:
    """Leave those lines out of this process's log."""
    for name in ("asyncio", "prefect.runner", *(f"prefect.{observer}" for observer in OBSERVERS)):
        logger = logging.getLogger(name)
        if not any(isinstance(known, Quiet) for known in logger.filters):
            logger.addFilter(Quiet())
