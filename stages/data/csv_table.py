"""A table of samples in a CSV file: a column with paths, and what is to be predicted in others.

path,label            one class for each image
a/1.jpg,cat

path,red,round        `targets: [red, round]`: several labels of 0 and 1, or figures
a/1.jpg,1,0.5

path,mask             `mask: mask` and `classes: [road, tree]`: images of class indices
a/1.jpg,a/1.png

Relative paths start from the folder of the table, as in a package's `predict.py`.
"""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.stages.data.files import ARRAY, SHOWN, SUFFIXES, look_at_files
from bonsai.stages.data.how import make_preprocess, require_image_channels
from bonsai.stages.data.packed_paths import PackedPaths
from bonsai.stages.data.registry import PARTS, TRAIN, LoadedSamples
from bonsai.stages.imports.contents import listed_few
from bonsai.stages.training.progress import say

Rows = list[dict[str, str]]


def load_csv(
    *,
    root: str,
    file: str = "labels.csv",
    path: str = "path",
    label: str | None = None,
    targets: Sequence[str] = (),
    mask: str | None = None,
    classes: Sequence[str] = (),
    split: str | None = None,
    delimiter: str = ",",
    size: int | Sequence[int] = 64,
    channels: int = 3,
    white: float | None = None,
    resize: str | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
    scale: float | Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedSamples:
    """Find the images, or the arrays in ``.npy`` files, that a table lists.

    Args:
        root: Folder that holds the table and all that it lists.
        file: The table, from `root`.
        path: Column with the path of each sample, from the table's folder.
        label: Column with a class; `label` where neither it nor `targets` nor `mask` is given.
        targets: Columns with numbers: several labels of 0 and 1, or figures.
        mask: Column with the path of a mask: an image of class indices, in which 255 does not count.
        classes: Names of the classes in the order of the masks' indices, or of the labels; labels are sorted by their names otherwise.
        split: Column with ``train``, ``val`` or ``test``; without it the recipe splits.
        delimiter: Between columns.
        size: Side of square images, [height, width], or [length] of series in ``.npy`` files.
        channels: 1, 3 or 4 of images; any number of arrays.
        white: As for `image_folder`, like all that follows.
        resize: As in `Preprocess`.
        crop: Share of the side that the centre crop keeps.
        interpolation: Of the resizing.
        scale: Value of white, or [black, white].
        mean: For each channel.
        std: For each channel.

    Raises:
        ConfigError: There is no such table or column, or a row of it cannot be used.
    """
    preprocess = make_preprocess(size, channels, resize=resize, crop=crop, interpolation=interpolation, scale=scale, mean=mean, std=std)
    folder = Path(root)
    if sum([label is not None, bool(targets), mask is not None]) > 1:
        raise _refusal("more than one kind of target", "label, targets and mask", "one of the three", "drop the others")
    label = "label" if label is None and not targets and mask is None else label
    table = folder / file
    if _within(folder, table) is None:
        allowed = "a file below data.options.root, without names that begin with a dot: only these are part of the input"
        raise _refusal("the table lies outside of its root", table, allowed, "move it there, or choose another root; its paths start from the table's folder")
    rows = _read(table, delimiter, [path, *targets, *(name for name in (label, mask, split) if name)])
    paths = _paths(rows, path, folder, table)
    if not all(sample.lower().endswith(ARRAY) for sample in paths):
        require_image_channels(channels)
    found: np.ndarray | PackedPaths
    if mask is not None:
        names, found = tuple(classes), PackedPaths.of(_paths(rows, mask, folder, table))
    elif targets:
        names, found = tuple(targets), np.array([[_number(row, column, place, table) for column in targets] for place, row in enumerate(rows)], np.float32)
    else:
        assert label is not None
        names, found = _labels([row[label] for row in rows], classes, table)
    say(f"reading {len(rows)} samples of {table.name}")
    files = look_at_files(folder, PackedPaths.of(paths), preprocess, found, white)
    known = None if isinstance(found, PackedPaths) else found
    return LoadedSamples(files, known, names, "of the user's own data: not stated", files.preprocess, _parts(rows, split, table))


def _read(table: Path, delimiter: str, columns: Sequence[str]) -> Rows:
    """Return the rows of a table that has these columns."""
    if not table.is_file():
        fix = "name it: data.options.file, from data.options.root"
        raise _refusal("no such table", table, "a CSV file with a line of column names", fix)
    if len(delimiter) != 1:
        raise _refusal("delimiter is no single character", repr(delimiter), 'one character, such as "," or ";"', "change data.options.delimiter")
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter)
            there = list(reader.fieldnames or [])
            for column in columns:
                if column not in there:
                    given = f"{column!r} in {table.name}"
                    raise _refusal(f"no such column{suggestion(column, there)}", given, ", ".join(there), "correct data.options, or its delimiter")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refusal("the table cannot be read", f"{table} ({error})", "a CSV file in UTF-8", "mend or convert it") from error
    short = [number for number, row in enumerate(rows, 2) if any(row[column] is None for column in columns)]
    if short or not rows:
        given = f"{table.name}, line {short[0]}" if short else f"{table.name}: no rows"
        raise _refusal("a row lacks columns, or there is none", given, f"values for {', '.join(columns)} in every row", "complete the table")
    return rows


def _paths(rows: Rows, column: str, folder: Path, table: Path) -> list[str]:
    """Return the paths of a column, which start from the table's folder, as paths from `folder`; all are files in it."""
    paths, outside, missing = list[str](), [], []
    for row in rows:
        place = _within(folder, table.parent / row[column].strip())
        if place is None:
            outside.append(row[column])
        elif not (folder / place).is_file():
            missing.append(row[column])
        else:
            paths.append(place)
    if outside:
        allowed = "paths within data.options.root, without names that begin with a dot: only these are part of the input"
        raise _refusal(f"{table.name} leads out of its folder", listed_few(outside), allowed, "move the files into the folder")
    if missing:
        fix = "correct the paths, which start from the table's folder, or drop the rows"
        raise _refusal(f"{table.name} lists files that are not there", listed_few(missing), f"files, from {table.parent}", fix)
    if other := [path for path in paths if not path.lower().endswith((*SUFFIXES, ARRAY))]:
        raise _refusal(f"{table.name} lists files of no known kind", listed_few(other), ", ".join((*SUFFIXES, ARRAY)), "convert the files")
    return paths


def _within(folder: Path, place: Path) -> str | None:
    """Return a place as a path from the folder; None if it lies outside, or if a name on the way begins with a dot."""
    steps = Path(os.path.relpath(place, folder))
    return None if any(step.startswith(".") for step in steps.parts) else steps.as_posix()


def _labels(given: Sequence[str], classes: Sequence[str], table: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes, and the class of each row."""
    names = tuple(str(name) for name in classes) or tuple(sorted(set(given)))
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise _refusal(f"{table.name} has labels that data.options.classes lacks", listed_few(unknown), listed_few(names, SHOWN), "name every class")
    return names, np.array([numbers[name] for name in given])


def _number(row: dict[str, str], column: str, place: int, table: Path) -> float:
    try:
        number = float(row[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        given = f"{row[column]!r} in column {column!r}, line {place + 2} of {table.name}"
        raise _refusal("a target is no number", given, "finite numbers", "correct the table, or drop the row")
    return number


def _parts(rows: Rows, column: str | None, table: Path) -> np.ndarray | None:
    if column is None:
        return None
    unknown = sorted({row[column] for row in rows if row[column].strip().lower() not in PARTS})
    if unknown:
        raise _refusal(f"{table.name} names unknown parts", listed_few(unknown), ", ".join(PARTS), f"correct the column {column!r}")
    parts = np.array([PARTS[row[column].strip().lower()] for row in rows])
    if TRAIN not in parts:
        raise _refusal(f"{table.name} has no training samples", listed_few(sorted({row[column] for row in rows})), "train, val and test", "mark some as train")
    return parts


def _refusal(problem: str, given: object, allowed: object, fix: str) -> ConfigError:
    return ConfigError(describe(f"data.options: {problem}", given=given, allowed=allowed, fix=fix))
