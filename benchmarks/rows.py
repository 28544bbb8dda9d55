"""Rows of results that a benchmark goes on from, with the machine and the versions beside them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from bonsai.profiles.located_yaml import Record
from bonsai.stages.store.manifest import host_facts

Row = TypeVar("Row", bound=Record)


def read_rows(file: Path, kind: type[Row]) -> list[Row]:
    """Return what earlier runs left in a file of results; nothing where there is none."""
    return [kind.model_validate(row) for row in json.loads(file.read_text())["rows"]] if file.exists() else []


def save_rows(file: Path, rows: Sequence[Record]) -> None:
    """Write the rows with the machine and the versions, by one rename."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps({**host_facts(), "rows": [row.model_dump(mode="json") for row in rows]}, indent=1) + "\n")
    part.replace(file)
