"""Bonsai's progress in the log of a Prefect run."""

import logging

from prefect.exceptions import FailedRun
from rich.markup import escape

from bonsai.pipeline.service.quiet import quieten
from bonsai.stages.training.progress import logger


class RunLog(logging.Filter):
    """Makes log lines fit for people who watch a run.

    `--watch` prints lines as rich markup, which a name such as `[/conv1/Conv]` would end with an error: it is escaped. And
    Prefect logs a traceback of its own after a Failed state that the flow returned on purpose: it is dropped.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the line; return whether it is logged."""
        if record.exc_info and isinstance(record.exc_info[1], FailedRun):
            return False
        record.msg, record.args = escape(record.getMessage()), ()
        return True


def show_log() -> None:
    """Let Bonsai's progress through to the run's log; Prefect gives the logger its handlers (`logging.extra_loggers`)."""
    quieten()
    logger.setLevel(logging.INFO)
    for name in (logger.name, "prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        filtered = logging.getLogger(name)
        if not any(isinstance(known, RunLog) for known in filtered.filters):
            filtered.addFilter(RunLog())
