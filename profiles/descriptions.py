"""Reads the descriptions of a record's keys from its docstring, the only place where they are written."""

import inspect
import re

from pydantic import BaseModel

SECTION = re.compile(r"^Attributes:$", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\w+): ", re.MULTILINE)


def summary_of(record: type[BaseModel]) -> str:
    """Return a record's docstring without its attributes, in one line."""
    return _flat(SECTION.split(inspect.getdoc(record) or "")[0])


def keys_of(record: type[BaseModel]) -> dict[str, str]:
    """Return the description of each key that the docstrings of a record and of its parents describe."""
    described: dict[str, str] = {}
    for parent in reversed(record.__mro__):
        if issubclass(parent, BaseModel) and "__doc__" in vars(parent):
            described |= _entries(inspect.cleandoc(parent.__doc__ or ""))
    return {key: text for key, text in described.items() if key in record.model_fields}


def _entries(docstring: str) -> dict[str, str]:
    _, *attributes = SECTION.split(docstring)
    if not attributes:
        return {}
    _, *parts = ENTRY.split(attributes[0])
    return {key: _flat(text) for key, text in zip(parts[::2], parts[1::2], strict=True)}


def _flat(text: str) -> str:
    """Return text in one line, with Markdown's marks for code."""
    return " ".join(text.split()).replace("``", "`")
