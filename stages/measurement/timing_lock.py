"""A lock that allows one timing at a time per machine, for all users and all stores.

Two timings at the same time disturb each other, so every stage that measures latency holds this lock. It is a file in `/tmp`, or the file that the
environment variable `BONSAI_TIMING_LOCK` names, such as one in a folder that all containers of a machine share. The kernel frees the lock when the
last process that holds it ends or is killed. Child processes that time engines inherit the descriptor, so the lock stays until they have ended too.
"""

import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonsai.stages.training.progress import say

VARIABLE = "BONSAI_TIMING_LOCK"
NAME = "bonsai-timing.lock"
READABLE = 0o644
"""Mode of the lock file. Reading is enough to lock it, so all users of a machine can share a file that only its owner can change."""
_held: dict[int, int] = {}
"""By thread, the file descriptor of the lock that it holds."""


@contextmanager
def hold_timing() -> Iterator[None]:
    """Hold the machine's lock for timing while the block runs; wait for it, and say so."""
    descriptor = _acquire()
    _held[threading.get_ident()] = descriptor
    try:
        yield
    finally:
        del _held[threading.get_ident()]
        os.close(descriptor)


def inheritable() -> tuple[int, ...]:
    """Return the descriptors that a child process which times engines must be given: that of this thread's lock."""
    held = _held.get(threading.get_ident())
    return () if held is None else (held,)


def lock_file() -> Path:
    """Return the file: the environment's, or one in `/tmp`, since the folder for temporary files may be another for every user."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    shared = Path("/tmp")  # noqa: S108  # the one place that all users of a machine share; opened without following links, and never written
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / NAME


def _acquire() -> int:
    """Return a descriptor that holds the lock on the file that has the lock's name now."""
    file, told = lock_file(), False
    while True:
        try:
            descriptor = _open(file)
        except OSError as error:
            file, reason = _own_file(file, error), error
            say(f"timing: {lock_file()} cannot be opened ({reason.strerror}); only your own timings are waited for, by {file}")
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say(f"timing waits: another one is under way on this machine (it holds {file})")
                told = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except BaseException:
                os.close(descriptor)
                raise
        if _is_current(descriptor, file):
            return descriptor
        os.close(descriptor)  # a cleaner removed the file meanwhile, and others may hold a new one


def _open(file: Path) -> int:
    """Open the file for reading, making it where it is missing.

    A file of another user in a folder like `/tmp` may not be opened with O_CREAT (Linux, `fs.protected_regular`), so that comes second.
    """
    while True:
        try:
            return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, READABLE)
        except FileExistsError:
            continue  # another process was faster
        os.fchmod(descriptor, READABLE)  # whatever the umask
        return descriptor


def _own_file(refused: Path, error: OSError) -> Path:
    """Return a file of this user's own in place of one that cannot be opened.

    Raises:
        OSError: That one cannot be opened either.
    """
    own = Path(tempfile.gettempdir()) / f"{NAME}.{os.getuid()}"
    if refused == own:
        raise error
    return own


def _is_current(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False
