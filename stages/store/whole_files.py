"""Text files that are there as a whole or not at all."""

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a text beside its place and put it there by one rename; where that fails nothing is left of it."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, file)
    except BaseException:  # Ctrl-C too
        part.unlink(missing_ok=True)
        raise
