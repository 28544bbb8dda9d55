"""The device's side: answers requests on stdin with this machine's own `LocalDevice`, and ends where stdin does.

    ssh pi@kitchen.local ~/bonsai/bin/python -m bonsai.stages.backends.remote.agent

Nothing listens on the network. What runtimes print goes to standard error, so that it is no answer. The process ends with its connection, and so does
what it holds: the lock for timing, and the processes that time engines.
"""

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bonsai.profiles.errors import BonsaiError
from bonsai.stages.backends.remote.answers import VERBS, Asked, Sitting
from bonsai.stages.backends.remote.build_mark import this_build
from bonsai.stages.backends.remote.files import DamagedFile, files_here
from bonsai.stages.backends.remote.frames import GREETING, ConnectionLost, Frame, PipeSink, PipeSource, Sink, Source, receive, send
from bonsai.stages.training.progress import logger
from bonsai.stages.worker import ERRORS

PATIENCE_SECONDS = 60.0
"""The agent ends if it hears nothing for so long: its host has gone, and its lock is wanted."""
WAITING = 16
"""Frames that wait to be answered before no more are read."""


class Agent:
    """Answers the requests of one host, one after another.

    Args:
        source: Where requests come from.
        sink: Where answers go.
    """

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source, self._sink = source, sink
        self._writing = threading.Lock()
        self._frames: queue.Queue[Frame] = queue.Queue(WAITING)
        self._number = 0

    def serve(self) -> None:
        """Answer until the host is gone; this ends the process."""
        with self._writing:
            self._sink.write(GREETING)
            send(self._sink, this_build().model_dump())
        threading.Thread(target=self._read, daemon=True).start()
        logger.setLevel(logging.INFO)
        logger.addHandler(_Told(lambda line: self._send({"number": self._number, "told": line})))
        with ExitStack() as held:
            sitting = Sitting(files_here(), held, self._frames.get)
            while True:
                frame = self._frames.get()
                if "part" in frame.header:
                    continue  # of a file that was refused in its middle
                self._number = int(frame.header["number"])
                self._answer(frame, sitting)

    def _answer(self, frame: Frame, sitting: Sitting) -> None:
        try:
            asked = Asked.of(frame)
            missing = sitting.files.missing(asked.files)
            if missing and asked.verb != "put":
                self._send({"number": self._number, "missing": missing})
                return
            for value, body in VERBS[asked.verb](sitting, asked):
                self._send({"number": self._number, "value": value}, body)
            self._send({"number": self._number, "done": True})
        except DamagedFile as error:
            self._send({"number": self._number, "damaged": str(error)})
        except ConnectionLost:
            os._exit(0)
        except BonsaiError as error:
            kind = next((name for name, each in ERRORS.items() if isinstance(error, each)), type(error).__name__)
            self._send({"number": self._number, "error": kind, "message": str(error)})
        except OSError as error:
            self._send({"number": self._number, "error": "OSError", "message": f"{error}"})
        except Exception as error:  # of a runtime, whose errors share no base; told with its kind
            self._send({"number": self._number, "error": type(error).__name__, "message": f"{type(error).__name__}: {error}"})

    def _send(self, header: dict[str, Any], body: bytes = b"") -> None:
        try:
            with self._writing:
                send(self._sink, header, body)
        except ConnectionLost:
            os._exit(0)

    def _read(self) -> None:
        """Read frames while others are answered, so that the end of the host is noticed at once."""
        try:
            while True:
                frame = receive(self._source)
                if "alive" in frame.header:
                    self._send({"alive": True})
                else:
                    self._frames.put(frame)
        except ConnectionLost:
            pass
        os._exit(0)


class _Told(logging.Handler):
    """Hands lines of progress to the host."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


def take_streams() -> tuple[Source, Sink]:
    """Return stdin and stdout for frames alone: whatever else writes to stdout writes to stderr from now on, and child processes read nothing."""
    source, sink = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return PipeSource(source, PATIENCE_SECONDS), PipeSink(sink)


def main() -> None:
    """Serve the host that started this process."""
    source, sink = take_streams()
    sys.stdout = sys.stderr
    Agent(source, sink).serve()


if __name__ == "__main__":
    main()
