"""JSON from outside: read within limits, so that whatever a file holds ends in a value or in one `ValueError`."""

from pathlib import Path
from typing import Any

from pydantic_core import from_json

from bonsai.profiles.located_yaml import nonfinite

MAX_BYTES = 64 * 2**20
"""Largest size of one file. A package's manifest has some hundred thousand bytes."""


def read_json(file: Path) -> Any:
    """Read a file of JSON: nested no deeper than 200 levels, with finite numbers and whole characters alone.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large, no UTF-8, no JSON, or beyond a limit.
    """
    return parse_json(read_text(file))


def read_text(file: Path, *, limit: int = MAX_BYTES) -> str:
    """Return the text of a regular file of at most `limit` bytes.

    Raises:
        OSError: It is no regular file, or cannot be read.
        ValueError: It is too large, or no UTF-8.
    """
    if file.exists() and not file.is_file():
        raise OSError(f"{file} is no regular file")
    with file.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    return content.decode("utf-8")


def parse_json(text: str) -> Any:
    """Read a text of JSON, as `read_json` does.

    Raises:
        ValueError: It is no JSON, or beyond a limit.
    """
    found = from_json(text, allow_inf_nan=False)
    for path in nonfinite(found):  # 1e999
        raise ValueError(f"{'.'.join(path) or 'the number'} is infinite")
    return found
