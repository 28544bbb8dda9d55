"""One digest of files and folders. Contents and the paths within a folder count; times and the place of a folder do not."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.hashing import sha256_of
from bonsai.stages.training.progress import report

SETTLED_SECONDS = 2.0
"""A file that changed more recently than this (seconds) is read again, because the clock of a file system is too coarse to separate two changes."""
THREADS = 8
"""Files that are hashed at a time: hashing leaves the interpreter to other threads, and a disk serves several at once."""
AT_A_TIME = 1000
"""Files that wait for a thread."""
SECONDS = 5.0
"""Time between two lines of progress."""
WORTH_KEEPING = 64_000_000
"""Bytes that take so long to hash that their hashes are written down."""
Facts = tuple[str, int, int, int, int]
"""Path, inode, size, and both times of a file."""

_hashed: dict[Facts, str] = {}


@dataclass
class _Kept:
    """Where hashes are written down, and how many bytes were hashed since."""

    file: Path | None = None
    new_bytes: int = 0


_kept = _Kept()


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
    ordered = sorted(files.items())
    found, shown = list[tuple[str, str]](), time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(ordered), AT_A_TIME):
            part = ordered[start : start + AT_A_TIME]
            found += zip((name for name, _ in part), pool.map(lambda item: _read(item[1], key), part), strict=True)
            if time.monotonic() - shown > SECONDS:
                shown = time.monotonic()
                report(f"hashing {key}", done=len(found), total=len(ordered), unit="file")
    _keep()
    return hashlib.sha256(repr(found).encode()).hexdigest()


def keep_hashes(file: Path) -> None:
    """Remember the hashes of files that do not change in a file, from now on: the next process reads none of them again.

    Args:
        file: Read now, if it is there; written whenever `WORTH_KEEPING` bytes have been hashed since.
    """
    _kept.file = file
    with suppress(OSError, ValueError, TypeError):  # an aid: where it is gone or damaged, files are hashed again
        _hashed.update({(path, *facts): digest for path, facts, digest in json.loads(file.read_text(encoding="utf-8"))})


def listed_few(names: Iterable[object], shown: int = 5) -> str:
    """Return the first names, and how many more there are."""
    every = [str(name) for name in names]
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def shown_path(file: Path) -> str:
    """Return a path as people know it: from the working directory where it lies below it."""
    return os.path.relpath(file) if file.is_absolute() and file.is_relative_to(Path.cwd()) else str(file)


def _read(file: Path, key: str) -> str:
    """Return a file's sha256; one that has not been touched since is not read again."""
    try:
        facts = file.stat()
        if time.time() - facts.st_ctime < SETTLED_SECONDS:
            return _sha256(file)
        known = (str(file.resolve()), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if known not in _hashed:
            _hashed[known] = _sha256(file)
            _kept.new_bytes += facts.st_size
        return _hashed[known]
    except OSError as error:
        raise _unreadable(key, file, error) from error


def _keep() -> None:
    if _kept.file is None or _kept.new_bytes < WORTH_KEEPING or not _kept.file.parent.is_dir():
        return
    part = _kept.file.with_name(f"{_kept.file.name}.{os.getpid()}")
    with suppress(OSError):
        part.write_text(json.dumps([[path, facts, digest] for (path, *facts), digest in list(_hashed.items())]), encoding="utf-8")
        os.replace(part, _kept.file)
        _kept.new_bytes = 0


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return sha256_of(stream)


def _unreadable(key: str, place: Path, error: OSError) -> ConfigError:
    return ConfigError(describe(f"{key}: cannot be read", given=f"{place} ({error.strerror})", allowed="what you may read", fix="check the rights"))
