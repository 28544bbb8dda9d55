"""Reads the small files in which Linux tells of a machine, below /sys and /proc."""

from pathlib import Path

SYS = Path("/sys")


def text_in(file: Path) -> str | None:
    """Return a file's text; None where it is missing, or its driver refuses."""
    try:
        return file.read_text().strip()
    except OSError:
        return None


def number_in(file: Path) -> float | None:
    """Return a file's number; None where there is none."""
    try:
        return float(text_in(file) or "")
    except ValueError:
        return None
