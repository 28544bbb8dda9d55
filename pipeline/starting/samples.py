"""What `bonsai init` knows of the user's samples: their task, parts and classes, and the size and mode of their images."""

import statistics
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from bonsai.stages.data.depth import find_depth
from bonsai.stages.data.files import UNREADABLE, read_values, require_readable, upright_size
from bonsai.stages.data.pixels import kind_of, quietly_opened

Thing = TypeVar("Thing")
SIDES = (32, 48, 64)
"""Sides in pixels to choose from: a CPU trains on them in minutes; larger ones are the user's choice."""
OPENED = 5000
"""Most samples whose files are opened, to look at their size, mode and masks."""
STEP = 16
"""The longer side of images that are no squares is a multiple of this, so that networks may halve it."""
ALIKE = 1.05
"""Images have one shape if their proportions differ by no more than this factor."""


class Seen(NamedTuple):
    """What the images are.

    Attributes:
        size: Height and width in pixels that fit them, the shorter of `SIDES`; a square where their proportions differ.
        square: Side of all of them where they are squares of one size, else None.
        channels: 1 or 3.
        depth: Sentences that say which value is white in images of more than 8 bits.
    """

    size: tuple[int, int]
    square: int | None
    channels: int
    depth: tuple[str, ...]


class Table(NamedTuple):
    """A table of samples to write.

    Attributes:
        file: Below the root.
        text: Its contents.
        split: Whether it has a column of parts.
    """

    file: Path
    text: str
    split: bool


class Samples(NamedTuple):
    """Samples with their targets.

    Attributes:
        task: Name of their task.
        root: Folder of the samples.
        classes: Names.
        found: What there is, in a few words.
        parts: Number of samples for train, validation and test.
        given: Which of TRAIN, VALIDATION and TEST the user has separated; empty where the recipe splits.
        targets: Targets of some samples, as the task has them.
        seen: What the images are.
        facts: Lines for the user: the number of samples, then warnings.
        table: Table that lists the samples; None where folders tell the classes.
        balanced: Whether the classes have about the same number of targets.
    """

    task: str
    root: Path
    classes: tuple[str, ...]
    found: str
    parts: dict[str, int]
    given: frozenset[int]
    targets: np.ndarray
    seen: Seen
    facts: tuple[str, ...]
    table: Table | None = None
    balanced: bool = True


def some_of(things: Sequence[Thing]) -> Sequence[Thing]:
    """Return all, or at most `OPENED`, taken evenly."""
    return things[:: ceil(len(things) / OPENED)]


def look_at(images: Sequence[Path]) -> Seen:
    """Open images.

    Raises:
        ConfigError: One cannot be opened, or it cannot be told what is white in it.
    """
    sizes, grey, broken = [], True, []
    for image in images:
        try:
            with quietly_opened(image) as opened:
                sizes.append(upright_size(opened))
                grey = grey and (opened.mode in ("1", "L") or kind_of(opened) in ("grey", "fractions"))
        except UNREADABLE as error:
            broken.append(f"{image} ({error})")
    deep = read_values(images, broken)
    require_readable(list(dict.fromkeys(broken)), len(images))
    (width, height), *others = set(sizes)
    return Seen(
        size=_fitting(sizes),
        square=width if width == height and not others else None,
        channels=1 if grey else 3,
        depth=find_depth(deep).sentences,
    )


def _fitting(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width that fit images of these widths and heights."""
    middle = statistics.median(min(size) for size in sizes)
    side = max((side for side in SIDES if side <= middle), default=SIDES[0])
    shapes = [height / width for width, height in sizes]
    shape = statistics.median(shapes)
    if max(shapes) > ALIKE * min(shapes):
        return side, side
    longer = max(round(side * max(shape, 1 / shape) / STEP) * STEP, side)
    return (longer, side) if shape > 1 else (side, longer)
