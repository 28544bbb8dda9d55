"""Packages that another package imports where they are installed, and that nothing here needs of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_out(package: str) -> Iterator[None]:
    """Let what is imported meanwhile take a package for one that is not installed; one that is imported already stays."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how Python is told that an import is to fail
    try:
        yield
    finally:
        del sys.modules[package]
