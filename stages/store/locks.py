"""Locks that the kernel frees when their process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(file: Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold the lock on `file` for as long as the block runs; the file stays.

    Args:
        file: Made where it is missing.
        wait: Whether to wait for another process that holds it.
        shared: Whether others may share it; one that is not shared has it alone.

    Raises:
        BlockingIOError: Another process holds it, and `wait` is false.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield


def is_held(file: Path) -> bool:
    """Return whether a living process holds the lock on `file`."""
    try:
        with hold(file):
            return False
    except BlockingIOError:
        return True
