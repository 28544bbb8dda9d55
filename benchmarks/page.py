"""The place of a table in a page, between two comments, and how a difference is shown."""

import re
from collections.abc import Sequence
from pathlib import Path

from arena import mean_interval, shown

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "pruning.md"


def write_between(mark: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Write lines between the two comments of a page that name the mark."""
    text, (first, last) = page.read_text(encoding="utf-8"), comments(mark)
    new = "\n".join([first, *lines, last])
    page.write_text(re.sub(f"{first}.*{last}", lambda _: new, text, flags=re.DOTALL), encoding="utf-8")


def between(mark: str, page: Path = PAGE) -> list[str]:
    """Return the lines between those comments."""
    first, last = comments(mark)
    return page.read_text(encoding="utf-8").split(first)[1].split(last)[0].strip("\n").split("\n")


def comments(mark: str) -> tuple[str, str]:
    """Return the comments around a table."""
    return f"<!-- {mark} -->", f"<!-- /{mark} -->"


def signed(ahead: Sequence[float]) -> str:
    """Return a difference with its sign and its interval."""
    interval = mean_interval(ahead)
    return f"{'+' if interval[0] >= 0 else ''}{shown(interval)}"
