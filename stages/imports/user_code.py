"""Code that is not Bonsai's: whatever it raises ends in one message with the file and line it came from."""

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import NamedTuple

from bonsai.profiles.errors import BonsaiError, ConfigError, describe
from bonsai.stages.memory import blame_memory

FAILURES = (Exception, SystemExit)
"""Errors that foreign code may raise. KeyboardInterrupt is not among them."""
PACKAGES = {"site-packages", "dist-packages"}
MACHINERY = {"torch", "torch_pruning", "torchgen"}
"""Packages whose lines in a traceback say nothing about the user's network."""
BONSAI = tuple(Path(__file__).parents[2] / room for room in ("profiles", "stages", "pipeline"))
STANDARD = tuple({Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")})


class Place(NamedTuple):
    """A line of a file."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file.name}, line {self.line}"


def place_of(error: BaseException, *, named: tuple[Place, ...] = ()) -> Place | None:
    """Return the last line of the user's own code that an error went through, else of a library's such as timm, or None.

    Args:
        error: Error with its traceback.
        named: Further lines, which its message names, the last one innermost.
    """
    frames = [Place(Path(frame.filename), frame.lineno or 0) for frame in extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(Place(Path(error.filename), error.lineno or 0))
    frames = [place for place in (*frames, *named) if place.file.is_file() and not any(place.file.is_relative_to(room) for room in BONSAI)]
    own = [place for place in frames if not _package(place.file) and not any(place.file.is_relative_to(folder) for folder in STANDARD)]
    others = [place for place in frames if _package(place.file) not in {"", *MACHINERY}]
    found = own or others
    return found[-1] if found else None


def say_what(error: BaseException) -> str:
    """Return an error's kind and the first line of its message, with the line of code where one is known: all of it on one line.

    A file that was looked for in vain by a relative path is told with the folder.
    """
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    place = place_of(error)
    sought = error.filename if isinstance(error, FileNotFoundError) else None
    where = f", looked for in {Path.cwd()}" if isinstance(sought, str) and not Path(sought).is_absolute() else ""
    return type(error).__name__ + (f": {message}{where}" if message else "") + (f" ({place})" if place else "")


@contextmanager
def user_code(problem: str, *, allowed: str, fix: str, given: str = "", passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Run code of the user's, and turn whatever it raises into one error of ours.

    Args:
        problem: The problem, in one line.
        allowed: Description of code that would be accepted.
        fix: Advice to the user.
        given: Arguments of the code, shown with its error.
        passing: Errors that go on as they are, beside those that are Bonsai's already; a file that is not there is told all the same.

    Raises:
        ConfigError: The code raised something, even `SystemExit`.
        MemoryError: The memory is full.
    """
    try:
        yield
    except BonsaiError:
        raise
    except FAILURES as error:
        blame_memory(error)
        if isinstance(error, passing) and not isinstance(error, FileNotFoundError):
            raise
        raise ConfigError(describe(problem, given=f"{say_what(error)}{f', {given}' if given else ''}", allowed=allowed, fix=fix)) from error


def _package(file: Path) -> str:
    """Return the installed package that a file is part of, or nothing."""
    parts = file.parts
    found = next((index for index, part in enumerate(parts) if part in PACKAGES), None)
    return parts[found + 1] if found is not None else ""
