"""Layers by name, as a recipe names them."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from bonsai.profiles.errors import ConfigError, describe, suggestion


def matching(pattern: str, names: Iterable[str], *, problem: str) -> list[str]:
    """Return the names that a glob matches.

    Args:
        pattern: A layer's name, that of what holds it, or a glob over them.
        names: The layers that may be named.
        problem: What to say where there is no such layer.

    Raises:
        ConfigError: It matches none.
    """
    names = list(names)
    found = [name for name in names if matches(name, pattern)]
    if not found:
        fix = "use a layer's name, that of what holds it, or a glob over them"
        raise ConfigError(describe(f"{problem}{suggestion(pattern, names)}", given=pattern, allowed=names, fix=fix))
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches a layer's name or that of a module around it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:depth]), pattern) for depth in range(1, len(parts) + 1))
