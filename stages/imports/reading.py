"""Watches which files the user's own code reads, and warns of those that are no part of the input: another content would go unnoticed.

Python tells of every file that it opens (`sys.addaudithook`). Files that compiled code opens by itself, as safetensors, OpenCV and HDF5 do, are not told.
"""

import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bonsai.stages.imports.contents import listed_few, shown_path
from bonsai.stages.imports.user_code import BONSAI, PACKAGES, STANDARD
from bonsai.stages.training.progress import say

CODE = (".py", ".pyc", ".pyi", ".so", ".pyd")
SYSTEM = tuple(Path(name) for name in ("/proc", "/sys", "/dev", "/etc", "/usr/share"))
CACHES = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME")
"""Environment variables that name cache folders. Hidden folders of the home directory also count as caches."""


class Opening(NamedTuple):
    """One call that opened a file, or tried to."""

    file: str
    reads: bool


class _Watch:
    """Collects the files that this thread opens, and the threads that it starts meanwhile."""

    def __init__(self) -> None:
        self.others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        self.openings: list[Opening] = []


_watches: list[_Watch] = []
_hooked: list[bool] = []
_warned: set[tuple[str, str]] = set()


@contextmanager
def warning_of_undeclared(name: str, key: str, declared: Collection[Path]) -> Iterator[None]:
    """Warn, in one line, of the files that the user's code reads meanwhile and that are no part of the input; each file once in a process.

    Args:
        name: Import string of the code; a name of a table is Bonsai's own code, which is not watched.
        key: Key under which they would be declared: ``model.files``.
        declared: The files and folders that are part of the input.
    """
    if ":" not in name:
        yield
        return
    _listen()
    watch = _Watch()
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)
    files = [file for file in undeclared(watch.openings, declared) if (name, str(file)) not in _warned]
    _warned.update((name, str(file)) for file in files)
    if files:
        say(f"warning: {name} reads {listed_few(shown_path(file) for file in files)}, not declared under {key}: a change of its contents is not noticed")


def undeclared(openings: Collection[Opening], declared: Collection[Path]) -> list[Path]:
    """Return the files that were read and are neither declared, nor code, nor of the system or a cache, nor written by the same code.

    Args:
        openings: Opened files, in the order of the calls.
        declared: Files and folders.
    """
    known = {place.resolve() for place in declared}
    written = {os.path.realpath(opening.file) for opening in openings if not opening.reads}
    read = dict.fromkeys(Path(os.path.realpath(opening.file)) for opening in openings if opening.reads)
    passing = (*BONSAI, *STANDARD, *SYSTEM, *_caches())
    return [
        file
        for file in read
        if file.is_file()
        and str(file) not in written
        and file.suffix not in CODE
        and not PACKAGES & set(file.parts)
        and known.isdisjoint((file, *file.parents))
        and not any(file.is_relative_to(place) for place in passing)
    ]


def _caches() -> list[Path]:
    """Return folders whose files are copies of what lies elsewhere."""
    named = [Path(os.environ[name]).resolve() for name in CACHES if os.environ.get(name)]
    home = Path.home().resolve()
    hidden = [child for child in home.iterdir() if child.name.startswith(".")] if home.is_dir() and home != Path("/") else []
    return [*named, *hidden]


def _listen() -> None:
    """Ask Python to tell of files that are opened: once in a process, for it cannot be taken back."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watches:
        return
    file, mode, flags = arguments
    if not isinstance(file, str | bytes | os.PathLike):  # a descriptor that is open already
        return
    reads = mode.startswith("r") if isinstance(mode, str) else not flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    opening = Opening(os.path.abspath(os.fsdecode(file)), reads)  # noqa: PTH100  # now, for the working directory may change; without a look at the disk
    for watch in _watches:
        if threading.get_ident() not in watch.others:
            watch.openings.append(opening)
