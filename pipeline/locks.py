"""Locks that the kernel frees when their process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock on `file` for as long as the block runs; the file stays.

    Raises:
        BlockingIOError: Another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_held(file: Path) -> bool:
    """Return whether a living process holds the lock on `file`."""
    try:
        with hold(file):
            return False
    except BlockingIOError:
        return True
