"""Finds samples in folders and tables, and turns files into what a network takes. It needs NumPy and Pillow alone."""

import csv
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bonsai.stages.data.pixels import as_sample, read_image, to_input
from bonsai.stages.delivery.predict.engines import Refused, shown
from bonsai.stages.tasks.predicting import LABEL, MASK

TABLE, ARRAY, TEST = ".csv", ".npy", "test"
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
"""Errors that Pillow and NumPy raise for files that they cannot read."""
CHECKED = "give a folder with one sub-folder per class, or a table with a path and its targets in each line"


class Sample(NamedTuple):
    """A file, and what a table or a folder says of it: its label or its targets, by name."""

    path: Path
    cells: Mapping[str, str]


class Columns(NamedTuple):
    """How a table is written.

    Attributes:
        path: Column with paths, from the table's folder.
        label: Column with the name of a class.
        mask: Column with the path of a mask.
        split: Column that says which part a sample is of; None where there is none.
    """

    path: str = "path"
    label: str = LABEL
    mask: str = MASK
    split: str | None = None
    delimiter: str = ","

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Columns":
        """Return the columns of the tables that the package's recipe read; the usual ones if it read none."""
        data = manifest["recipe"].get("data", {})
        options = data.get("options", {}) if data.get("name") == "csv" else {}
        return cls(**{name: options[name] for name in cls._fields if options.get(name)})


def list_samples(files: Sequence[Path], columns: Columns) -> Iterator[Sample]:
    """Yield the files, and instead of each table those that it names."""
    for file in files:
        yield from read_table(file, columns) if file.suffix.lower() == TABLE else [Sample(file, {})]


def list_labelled(place: Path, classes: Sequence[str], columns: Columns) -> list[Sample]:
    """Return the samples of a table, or of a folder with one sub-folder per class, in the order in which Bonsai reads them.

    Of a table with parts, the test part counts; so it does of a folder with the sub-folder ``test``, unless that is a class.

    Raises:
        Refused: It is neither, or has a sub-folder that is no class.
    """
    if place.is_file() and place.suffix.lower() == TABLE:
        return [sample for sample in read_table(place, columns) if columns.split is None or sample.cells.get(columns.split, "").strip().lower() == TEST]
    if TEST not in classes and (place / TEST).is_dir():
        place = place / TEST
    folders = sorted(child for child in place.iterdir() if child.is_dir() and not child.name.startswith(".")) if place.is_dir() else []
    others = [child.name for child in folders if child.name not in classes]
    if others or not folders:
        allowed = f"a table ({TABLE}), or a folder with the sub-folders {', '.join(classes)}"
        raise Refused(2, f"--check {shown(place)}: not what the package's figure is of", given=", ".join(others) or place, allowed=allowed, fix=CHECKED)
    return [
        Sample(file, {LABEL: folder.name})
        for folder in sorted(folders, key=lambda folder: classes.index(folder.name))
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in (*IMAGES, ARRAY) and file.is_file() and not any(step.startswith(".") for step in file.relative_to(folder).parts)
    ]


def read_table(table: Path, columns: Columns) -> Iterator[Sample]:
    """Yield the rows of a table; relative paths start from its folder, as in the loader `csv`.

    Raises:
        Refused: It cannot be read, or has no column of paths.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter=columns.delimiter))
    except (OSError, ValueError, csv.Error) as error:
        raise Refused(2, f"{shown(table)}: cannot be read", given=error, allowed="a table in UTF-8", fix="mend the table") from error
    for row in rows:
        cells = {name: cell for name, cell in row.items() if name and cell}
        if columns.path not in cells:
            allowed, fix = f"a column `{columns.path}`", "name the columns in the first line, and write a path in each line below"
            raise Refused(2, f"{shown(table)}: no column `{columns.path}`, or a row without one", given=", ".join(cells), allowed=allowed, fix=fix)
        for own, name in ((LABEL, columns.label), (MASK, columns.mask)):
            if name in cells:
                cells[own] = cells.pop(name)
        if MASK in cells:
            cells[MASK] = str(table.parent / cells[MASK].strip())
        yield Sample(table.parent / cells.pop(columns.path).strip(), cells)


def read_inputs(file: Path, preprocess: Any) -> list[np.ndarray]:
    """Return what the network takes for each sample of a file, float32: one for an image, one or several for an array.

    Args:
        file: An image, or a ``.npy`` file with a sample or a batch of them.
        preprocess: The manifest's `preprocess`, with its keys as attributes.

    Raises:
        Refused: The file cannot be read.
    """
    try:
        if file.suffix.lower() != ARRAY:
            return [to_input(read_image(file, preprocess), preprocess)]
        array = np.load(file, allow_pickle=False)
        if preprocess.full is not None:  # each of a batch is made smaller, as in training
            samples = array if array.ndim > 1 + len(preprocess.full) else array[None]
            return [to_input(as_sample(sample, preprocess), preprocess) for sample in samples]
        values = to_input(array, preprocess)
    except UNREADABLE as error:
        allowed = f"an image ({', '.join(IMAGES)}), an array ({ARRAY}) or a table ({TABLE})"
        raise Refused(2, f"{shown(file)}: cannot be read", given=error, allowed=allowed, fix="mend the file, or leave it out") from error
    return list(values) if values.ndim > 1 + len(preprocess.size) else [values]
