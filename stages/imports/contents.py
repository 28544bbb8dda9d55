"""One digest of files and folders. Contents and the paths within a folder count; times and the place of a folder do not."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.hashing import sha256_of

SETTLED_SECONDS = 2.0
"""A file that changed more recently than this (seconds) is read again, because the clock of a file system is too coarse to separate two changes."""


def walk(folder: Path, *, hidden: bool = True, _above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield every file of a folder, in the order of their paths; links to folders are followed, but never in a circle.

    Args:
        folder: Folder to search.
        hidden: Whether to look at names that begin with a dot.
    """
    above = (*_above, folder.resolve())
    for child in sorted(folder.iterdir()):
        if child.name == "__pycache__" or (child.name.startswith(".") and not hidden):
            continue
        if child.is_dir():
            if child.resolve() not in above:
                yield from walk(child, hidden=hidden, _above=above)
        elif child.is_file():
            yield child


def files_at(place: Path, key: str, *, hidden: bool = True) -> dict[str, Path]:
    """Return the file at a place under an empty name, or those of the folder there by their path in it; nothing where there is neither.

    Args:
        place: File or folder to search.
        key: Key in the recipe, for messages.
        hidden: Whether to look at names that begin with a dot.

    Raises:
        ConfigError: A folder cannot be read.
    """
    try:
        if place.is_dir():
            return {file.relative_to(place).as_posix(): file for file in walk(place, hidden=hidden)}
        return {"": place} if place.is_file() else {}
    except OSError as error:
        raise _unreadable(key, Path(error.filename or place), error) from error


def digest_of(files: Mapping[str, Path], key: str) -> str:
    """Return the digest of named files' contents.

    Args:
        files: Files by a name that identifies each.
        key: Key in the recipe, for messages.

    Raises:
        ConfigError: One cannot be read.
    """
    return hashlib.sha256(repr([(name, _read(file, key)) for name, file in sorted(files.items())]).encode()).hexdigest()


def listed_few(names: Iterable[object], shown: int = 5) -> str:
    """Return the first names, and how many more there are."""
    every = [str(name) for name in names]
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def shown_path(file: Path) -> str:
    """Return a path as people know it: from the working directory where it lies below it."""
    return os.path.relpath(file) if file.is_absolute() and file.is_relative_to(Path.cwd()) else str(file)


def _read(file: Path, key: str) -> str:
    """Return a file's sha256; one that has not been touched since is read once in a process."""
    try:
        facts = file.stat()
        if time.time() - facts.st_ctime < SETTLED_SECONDS:
            return _sha256(file)
        return _sha256_of(str(file.resolve()), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    except OSError as error:
        raise _unreadable(key, file, error) from error


@cache
def _sha256_of(file: str, *_facts: int) -> str:
    return _sha256(Path(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return sha256_of(stream)


def _unreadable(key: str, place: Path, error: OSError) -> ConfigError:
    return ConfigError(describe(f"{key}: cannot be read", given=f"{place} ({error.strerror})", allowed="what you may read", fix="check the rights"))
