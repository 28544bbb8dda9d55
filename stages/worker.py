"""Calls that may end their process, made in another one: native code that crashes, hangs or takes all memory must not take the run with it.

    counts = call("bonsai.stages.backends.apart:_build_engine", {"graph": "model.onnx", ...}, doing="building model.onnx", seconds=600)

A call is an import string and arguments that JSON can hold; so is what it returns. The process is started by the first call, which costs half a
second, and serves the next ones. One that ended, or was ended because it did not answer, is replaced at the next call.
"""

import atexit
import faulthandler
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bonsai.profiles.errors import BonsaiError, ConfigError
from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.interpreter import run_module
from bonsai.stages.memory import lacks_memory
from bonsai.stages.store.room import MACHINE_ERRORS

MODULE = "bonsai.stages.worker"
GRACE_SECONDS = 5.0
"""If its parent is gone, a call ends itself this many seconds after its time limit."""
ERRORS: dict[str, type[BonsaiError]] = {kind.__name__: kind for kind in (BuildError, ConfigError, DeviceUnavailable)}
"""Errors that reach the parent process with their own class. Any other becomes a `BuildError`."""
FIRST_VICTIM = 1000
"""Highest `oom_score_adj`: if memory runs out, Linux ends this process instead of the run."""


def call(function: str, arguments: Mapping[str, Any], *, doing: str, seconds: float) -> Any:
    """Call a function in the other process and return what it returns.

    Args:
        function: Import string, ``package.module:attribute``.
        arguments: Keyword arguments that JSON can hold.
        doing: Description of the call, for messages: "opening model.onnx in ONNX Runtime".
        seconds: A call that takes longer is ended.

    Raises:
        BuildError: The process crashed, was ended for lack of memory or after `seconds`, or the function raised something unexpected.
        BonsaiError: An error of the function, of a class in `ERRORS`.
        OSError: The disk or the memory is full.
        MemoryError: The memory is full.
    """
    with _turn:
        return _worker().call(function, arguments, doing, seconds)


class Worker:
    """A process that makes one call after another, until it is stopped or its parent is gone."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._pipe, theirs = Pipe()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
        self._process = subprocess.Popen(
            run_module(MODULE, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=self._words,
            stderr=self._words,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the same code as here
        )
        theirs.close()

    @property
    def lives(self) -> bool:
        """Whether the process can be called."""
        return self._process.poll() is None

    def call(self, function: str, arguments: Mapping[str, Any], doing: str, seconds: float) -> Any:
        """Make one call; after it the process is stopped unless it answered."""
        answered = False
        try:
            self._pipe.send_bytes(json.dumps({"function": function, "arguments": arguments, "seconds": seconds}).encode())
            if not self._pipe.poll(seconds):
                raise BuildError(f"{doing} took more than {seconds:g} s; the process that did it was ended")
            answer = json.loads(self._pipe.recv_bytes())
            answered = True
        except (EOFError, ConnectionError):
            raise BuildError(f"{doing} ended its process: {self._ending()}") from None
        finally:
            if not answered:
                self.stop()
        if "errno" in answer:
            raise OSError(answer["errno"], *answer["words"])
        if answer.get("error") == MemoryError.__name__:
            raise MemoryError(f"{doing}: {answer['message']}")
        if "error" in answer:
            raise ERRORS.get(answer["error"], BuildError)(answer["message"])
        return answer["value"]

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._words.close()

    def _ending(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"{name}, as Linux does where memory runs out" if name == "SIGKILL" else name
        self._words.seek(0)
        words = self._words.read().decode(errors="replace").strip().splitlines()[-1:]
        return f"code {code}, {words[0] if words else 'without a message'}"


_turn = threading.Lock()
_current: list[Worker] = []


def _worker() -> Worker:
    """Return the process that serves this one; a fork of this one has none yet."""
    if _current and _current[0].owner != os.getpid():
        _current.clear()
    if _current and not _current[0].lives:
        _current.pop().stop()
    if not _current:
        _current.append(Worker())
    return _current[0]


@atexit.register
def _stop() -> None:
    if _current and _current[0].owner == os.getpid():
        _current.pop().stop()


def serve(descriptor: int) -> None:
    """Make the calls that the parent sends through a pipe, until the parent is gone: what the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_VICTIM))
    pipe = Connection(descriptor)
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        faulthandler.dump_traceback_later(request["seconds"] + GRACE_SECONDS, exit=True)  # needs no turn of the interpreter, which native code may hold
        answer = _answer(request["function"], request["arguments"])
        faulthandler.cancel_dump_traceback_later()
        pipe.send_bytes(json.dumps(answer).encode())


def _answer(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(**arguments)}
    except BonsaiError as error:
        return {"error": MemoryError.__name__ if lacks_memory(error) else type(error).__name__, "message": str(error)}
    except OSError as error:
        told = {"errno": error.errno, "words": [error.strerror, *([str(error.filename)] if error.filename else [])]} if error.errno in MACHINE_ERRORS else {}
        return {"error": type(error).__name__, "message": f"{type(error).__name__}: {error}"} | told
    except Exception as error:  # of libraries whose errors share no base; told with its kind
        return {"error": MemoryError.__name__ if lacks_memory(error) else type(error).__name__, "message": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    serve(int(sys.argv[1]))
