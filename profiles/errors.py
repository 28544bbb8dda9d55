"""Errors that a user can mend, and how they are worded.

BonsaiError                  every error that Bonsai raises on purpose
 └── ConfigError             a recipe, a profile or an option is wrong (exit code 2)
     └── BudgetError         the budget is below what this network can reach on the device
(the errors of the stages are in `stages/errors.py`)
"""

import difflib
import unicodedata
from collections.abc import Iterable

SHORT = 200
"""Most characters of a value that a message shows."""
LONG = 4_000
"""Most characters of one part of a message."""
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, which could change a terminal or a page."""
JOINERS = "\u200c\u200d\u00ad"
"""Characters of these categories that are allowed: Persian, Indic scripts and emoji need them; and the soft hyphen."""


class BonsaiError(Exception):
    """Base of every error that ends a run with one message and a documented exit code."""

    exit_code = 1


class ConfigError(BonsaiError, ValueError):
    """A recipe, a profile or a command-line option cannot be used as given."""

    exit_code = 2


class BudgetError(ConfigError):
    """The latency budget lies below the smallest latency that the network can reach."""


def describe(problem: str, *, given: object, allowed: object, fix: str) -> str:
    """Word an error the way every message of Bonsai is worded.

    Args:
        problem: One line that says where and what is wrong.
        given: The value that was found.
        allowed: Values that would be accepted; an iterable of names is joined.
        fix: Advice: the next thing that the user should do.
    """
    if isinstance(allowed, Iterable) and not isinstance(allowed, str):
        allowed = ", ".join(str(name) for name in allowed) or "nothing"
    problem, given, allowed, fix = (shorten(visible(str(part)), LONG) for part in (problem, given, allowed, fix))
    return f"{problem}\n  given:   {given}\n  allowed: {allowed}\n  do:      {fix}"


def shorten(text: str, limit: int = SHORT) -> str:
    """Return a text of at most about `limit` characters; a longer one says how long it was."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def visible(text: str, *, keep: str = "\n\t") -> str:
    """Return a text in which what steers a terminal, or turns the direction of writing, is an escape sequence instead.

    Args:
        text: Any text, even one that UTF-8 cannot write.
        keep: Characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or c in JOINERS or unicodedata.category(c) not in INVISIBLE else c.encode("unicode_escape").decode() for c in text)


def suggestion(given: str, allowed: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(given[:SHORT], list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
