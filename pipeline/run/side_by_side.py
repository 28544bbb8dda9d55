"""Branches side by side: a thread each, whose stages run in child processes.

A stage sets what is global to its process (torch's threads, determinism and random numbers, what tracing and export patch), so two
may not run in one. A stage that is timed runs alone on its device: training beside it would be in its milliseconds. A device that has an address
is timed while this machine trains, and while others are timed.
"""

import contextvars
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, TypeVar

from bonsai.profiles.errors import BonsaiError
from bonsai.stages.backends.devices import address_among
from bonsai.stages.interpreter import run_code
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Store, is_timed
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.progress import logger
from bonsai.stages.training.tracking import sending_to, track

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
ResultT = TypeVar("ResultT")
CHILD = "import sys; from bonsai.pipeline.run.side_by_side import serve_stages; serve_stages(int(sys.argv[1]))"
branch_name = contextvars.ContextVar("branch_name", default="")
"""Profile whose branch this thread runs; it is added to the log lines."""


class ProcessLost(BonsaiError, OSError):
    """The process that ran a stage was ended from outside; the next run goes on from the stage's last checkpoint."""


class Child:
    """A process that runs one stage after another, until it is stopped or its parent is gone."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        paths = os.pathsep.join(filter(None, sys.path))  # the same code as here
        self._process = subprocess.Popen(
            run_code(CHILD, str(theirs.fileno())),
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # what it starts is ended with it
        )
        theirs.close()

    def run(self, root: Path, stage: Callable[..., ArtifactT], inputs: dict[str, Any]) -> ArtifactT:
        """Run a stage there; its log and its figures appear here, in the calling thread.

        Raises:
            ProcessLost: The process was ended.
        """
        try:
            self._pipe.send((root, stage, inputs))
            while True:
                what, value = self._pipe.recv()
                if what == "log":
                    logger.handle(_named(value))
                elif what == "figures":
                    track(*value)
                elif what == "error":
                    raise value
                else:
                    return value  # type: ignore[no-any-return]  # as the stage declares
        except (EOFError, ConnectionError):
            code = self._process.wait()
            reason = f"ended by signal {-code}; for lack of memory, perhaps" if code < 0 else f"ended with code {code}"
            raise ProcessLost(f"{stage.__name__}: its process was {reason}; the same command goes on from the last checkpoint") from None

    def stop(self) -> None:
        """End the process, whatever it does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()  # the pipe stays open: another thread may be reading its end


class ChildProcesses:
    """Runs stages in child processes, so that threads may call it side by side: as many processes as calls at one time.

    Args:
        store: Folder of the artifacts.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: dict[str | None, Turns] = {None: Turns()}
        self._idle: LifoQueue[Child] = LifoQueue()
        self._all: list[Child] = []
        self._stopped, self._changing = False, threading.Lock()

    def __enter__(self) -> "ChildProcesses":
        """Start nothing: a process starts when a stage first needs it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        self.stop()

    def run(self, stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Return a stage's artifact; where there is none yet, run the stage in a child process: a `Step`.

        Raises:
            ProcessLost: The process was ended from outside.
        """
        found = self._store.find(stage, **inputs)
        if found is not None:
            return found
        with self._turn(address_among(inputs), timed=is_timed(stage)):
            child = self._take()
            try:
                artifact = child.run(self._store.root, stage, inputs)
            except ProcessLost:
                if self._stopped:
                    raise RuntimeError("the run was stopped") from None  # no failure of the profile's
                raise
            except Exception:
                self._idle.put(child)
                raise
            self._idle.put(child)
            return artifact

    @contextmanager
    def _turn(self, address: str | None, *, timed: bool) -> Iterator[None]:
        """Hold a turn on the device at an address, and on this machine, unless it only waits for what is timed elsewhere."""
        with self._changing:
            turns = self._turns.setdefault(address, Turns())
        with turns.take(alone=timed), nullcontext() if timed or address is None else self._turns[None].take(alone=False):
            yield

    def stop(self) -> None:
        """End all processes, whatever they do."""
        with self._changing:
            self._stopped = True
            for child in self._all:
                child.stop()
            self._all.clear()

    def _take(self) -> Child:
        with self._changing:
            if self._stopped:
                raise RuntimeError("the run was stopped")
            try:
                return self._idle.get_nowait()
            except Empty:
                self._all.append(Child())
                return self._all[-1]


class Turns:
    """Lets any number go together, or one alone; who waits to go alone is not overtaken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = self._waiting = 0
        self._alone = False

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and hold it for as long as the block runs."""
        with self._changed:
            if alone:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._alone and not self._together)
                self._waiting -= 1
                self._alone = True
            else:
                self._changed.wait_for(lambda: not self._alone and not self._waiting)
                self._together += 1
        try:
            yield
        finally:
            with self._changed:
                if alone:
                    self._alone = False
                else:
                    self._together -= 1
                self._changed.notify_all()


def branches_at_once(training: TrainConfig, profiles: int) -> int:
    """Return how many branches this machine can grow side by side: on a CPU one per `training.threads` cores; a GPU trains one at a time."""
    if training.device != "cpu":
        return 1
    return max(min(profiles, (os.cpu_count() or 1) // training.threads), 1)


def grow_side_by_side(branches: Mapping[str, Callable[[], ResultT]], count: int, stop: Callable[[], None]) -> dict[str, ResultT]:
    """Grow branches in `count` threads; one after another in this one where that is 1.

    Args:
        branches: Branches by profile.
        count: Threads.
        stop: Ends what the threads wait for, where one of them raises or the user stops the run.
    """
    if count == 1:
        return {name: grow() for name, grow in branches.items()}

    def grow_named(name: str) -> ResultT:
        branch_name.set(name)
        return branches[name]()

    pool = ThreadPoolExecutor(count)
    try:
        grown = {name: pool.submit(grow_named, name) for name in branches}
        for ended in wait(grown.values(), return_when=FIRST_EXCEPTION).done:
            ended.result()
        return {name: ended.result() for name, ended in grown.items()}
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def serve_stages(descriptor: int) -> None:
    """Run the stages that the parent sends through a pipe, until the parent is gone: what a child process does."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe = Connection(descriptor)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_ToParent(pipe)]
    with sending_to(_FiguresToParent(pipe)):
        while True:
            try:
                root, stage, inputs = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send(("artifact", Store(root).run(stage, **inputs)))
            except Exception as error:  # it is raised in the parent
                pipe.send(("error", _portable(error)))


class _ToParent(logging.Handler):
    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), ()
        self._pipe.send(("log", record))


class _FiguresToParent:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._pipe.send(("figures", (metrics, step)))

    def close(self, *, finished: bool) -> None:
        """Leave the pipe open: the parent ends this process."""


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the other end closes, however the parent ends
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent, with its traceback as a note unless it is a message for the user."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, BonsaiError):
        error.add_note(f"In the child process:\n{traceback.format_exc()}")
    return error


def _named(record: logging.LogRecord) -> logging.LogRecord:
    name = branch_name.get()
    if name and not record.msg.startswith(name):
        record.msg = f"{name}: {record.msg}"
    return record
