"""Reads and writes the rows of a benchmark, with the machine and the versions. A benchmark that was stopped goes on from its rows."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bonsai.profiles.located_yaml import Record
from bonsai.stages.store.manifest import host_facts


class KeyedRow(Record):
    """A row that some of its attributes tell from the others."""

    @property
    def key(self) -> Any:
        """Those attributes, as a tuple with their names."""
        raise NotImplementedError


class TrainedRow(KeyedRow):
    """A network that was trained.

    Attributes:
        latency: By the latency model, as a fraction of the dense network's.
        macs: Multiply-accumulates, as a fraction.
        before: Dense epochs before the cut.
        after: Epochs after it.
        cost: Training in dense epochs.
        top1: On the test images, 0-1.
        seconds: Processor time, with the part of the dense training that no earlier row needed.
    """

    latency: float = 1.0
    macs: float = 1.0
    before: float
    after: float
    cost: float
    top1: float
    seconds: float


Row = TypeVar("Row", bound=Record)
Keyed = TypeVar("Keyed", bound=KeyedRow)
Key = TypeVar("Key", bound=tuple[Any, ...])


def read_rows(file: Path, kind: type[Row]) -> list[Row]:
    """Return what earlier runs left in a file of results; nothing where there is none."""
    return [kind.model_validate(row) for row in json.loads(file.read_text())["rows"]] if file.exists() else []


def save_rows(file: Path, rows: Sequence[Record]) -> None:
    """Write the rows with the machine and the versions, by one rename."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps({**host_facts(), "rows": [row.model_dump(mode="json") for row in rows]}, indent=1) + "\n")
    part.replace(file)


def go_on(file: Path, kind: type[Keyed], wanted: Iterable[Key], run: Callable[[Key], Keyed], minutes: float | None) -> None:
    """Run the rows that a file of results lacks, and write each as soon as it is known.

    Args:
        file: The results.
        kind: Of the rows.
        wanted: Their keys, in the order in which they run.
        run: Makes a row.
        minutes: After which no row begins; None for no end.
    """
    rows, began = read_rows(file, kind), time.monotonic()
    known = {row.key for row in rows}
    for key in wanted:
        if key in known:
            continue
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            return
        rows.append(run(key))
        known.add(key)
        print(rows[-1].model_dump_json(), flush=True)
        save_rows(file, rows)
