"""Images and their masks, as `bonsai init` finds them: classes from the values of the masks, and a table that lists the pairs."""

import csv
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bonsai.pipeline.starting.classes import FEW, LISTED, UNEQUAL
from bonsai.pipeline.starting.pairs import Pair, Pairs
from bonsai.pipeline.starting.samples import OPENED, Samples, Table, look_at, some_of
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.files import SECONDS, UNREADABLE, require_proportions, require_readable, upright_size
from bonsai.stages.data.pixels import quietly_opened, to_mask
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION
from bonsai.stages.data.splitting import split_samples
from bonsai.stages.imports.contents import listed_few
from bonsai.stages.tasks.segmentation.judging import IGNORED
from bonsai.stages.training.progress import report

TABLE = "masks.csv"
SPLIT = {TRAIN: "train", VALIDATION: "val", TEST: "test"}
SIDE = 32
"""Side of the masks that are kept to estimate what the test images can prove."""
NUMBERS = "a number for each class, counted from 0 without gaps; 255 for pixels that do not count"


class _Masks(NamedTuple):
    """What masks hold.

    Attributes:
        pixels: Share of the pixels with each value, (256,).
        holders: Masks with each value, (256,) int64.
        small: (n, SIDE, SIDE) uint8.
    """

    pixels: np.ndarray
    holders: np.ndarray
    small: np.ndarray


def find_masks(found: Pairs, data: DataConfig) -> Samples:
    """Look at images and their masks.

    Raises:
        ConfigError: A file cannot be opened, a mask is not of its image or holds colours, the masks' values are no classes, or there are too few images.
    """
    looked = some_of(found.pairs)
    seen, masks = look_at([pair.image for pair in looked]), _read_masks(looked)
    classes = _classes(masks)
    given = frozenset(pair.part for pair in found.pairs if pair.part is not None)
    parts = np.array([pair.part for pair in found.pairs]) if given else None
    sizes = {name: len(numbers) for name, numbers in split_samples(None, parts, len(found.pairs), classes, data).items()}
    count, shares = f"{len(found.pairs)} images with masks", [f"{name} {100 * share:.1f} %" for name, share in zip(classes, masks.pixels, strict=False)]
    listed = ", ".join(shares[:LISTED]) + (f" and {len(shares) - LISTED} more classes" if len(shares) > LISTED else "")
    present = masks.pixels[:IGNORED][masks.pixels[:IGNORED] > 0]
    return Samples(
        task="segmentation",
        root=found.root,
        classes=classes,
        found=f"{count} of {len(classes)} classes",
        parts=sizes,
        given=given,
        targets=masks.small,
        seen=seen,
        facts=(f"{count}: {listed} of the pixels; {', '.join(f'{size} for {part}' for part, size in sizes.items())}", *_told(found, masks, classes)),
        table=Table(found.root / TABLE, _table(found, split=bool(given)), bool(given)),
        balanced=bool(present.max() <= UNEQUAL * present.min()),
    )


def _read_masks(pairs: Sequence[Pair]) -> _Masks:
    """Read masks, each of the size that it has.

    Raises:
        ConfigError: One cannot be read, holds colours, or has other proportions than its image.
    """
    pixels, holders, small, broken, shown = np.zeros(IGNORED + 1), np.zeros(IGNORED + 1, np.int64), [], [], time.monotonic()
    for number, pair in enumerate(pairs):
        if time.monotonic() - shown > SECONDS:
            shown = time.monotonic()
            report("looking at masks", done=number, total=len(pairs), unit="file")
        try:
            with quietly_opened(pair.mask) as mask, quietly_opened(pair.image) as image:
                width, height = upright_size(mask)
                require_proportions(upright_size(image), (width, height))
                indices = to_mask(mask, Preprocess.of((1, height, width)))
        except UNREADABLE as error:
            broken.append(f"{pair.mask} ({error})")
            continue
        counts = np.bincount(indices.reshape(-1), minlength=IGNORED + 1)
        pixels, holders = pixels + counts / indices.size, holders + (counts > 0)
        rows, columns = (np.arange(SIDE) * side // SIDE for side in indices.shape)
        small.append(indices[np.ix_(rows, columns)])
    require_readable(broken, len(pairs))
    return _Masks(pixels / len(pairs), holders, np.stack(small))


def _classes(masks: _Masks) -> tuple[str, ...]:
    """Return a name for each class.

    Raises:
        ConfigError: The masks hold fewer than two, or most numbers below the largest are not there.
    """
    values = np.flatnonzero(masks.holders[:IGNORED]).tolist()
    shown = listed_few([*values, *([IGNORED] if masks.holders[IGNORED] else [])], LISTED)
    if len(values) < 2:
        fix = "write 1 where your masks have 255, if that is your class" if masks.holders[IGNORED] else "give the background a number of its own"
        raise ConfigError(describe("the masks hold fewer than two classes", given=f"the values {shown}", allowed=NUMBERS, fix=fix))
    if values[-1] + 1 > 2 * len(values):
        fix = f"number the {len(values)} classes from 0 to {len(values) - 1}"
        raise ConfigError(describe("the values of the masks leave gaps", given=f"the values {shown}", allowed=NUMBERS, fix=fix))
    return tuple(f"class-{number}" for number in range(values[-1] + 1))


def _told(found: Pairs, masks: _Masks, classes: Sequence[str]) -> list[str]:
    """Return what the user should know of images and masks."""
    lines = []
    for alone, what, lacks in ((found.images, "images", "mask"), (found.masks, "masks", "image")):
        if alone:
            lines.append(f"warning: {len(alone)} {what} have no {lacks} of their name and are left out: {listed_few(alone, 3)}")
    if len(found.pairs) > OPENED:
        lines.append(f"classes are counted in {len(masks.small)} of the {len(found.pairs)} masks; a run ends at once if another mask holds more")
    if masks.holders[IGNORED]:
        lines.append(
            f"255 does not count, neither in the loss nor in the metric: {100 * masks.pixels[IGNORED]:.1f} % of the pixels, in {masks.holders[IGNORED]} masks"
        )
    if missing := [number for number in range(len(classes)) if not masks.holders[number]]:
        lines.append(
            f"warning: no mask holds {listed_few(missing)}, and the network gets an output for it; count the classes from 0 without gaps if that is none"
        )
    for number, name in enumerate(classes):
        if 0 < masks.holders[number] < FEW:
            lines.append(f"warning: {name} is in {masks.holders[number]} masks; a network learns little from fewer than {FEW}")
    return lines


def _table(found: Pairs, *, split: bool) -> str:
    """Return the table that lists the pairs, as text."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "mask", *(["split"] if split else [])])
    for pair in found.pairs:
        paths = [Path(os.path.relpath(file, found.root)).as_posix() for file in (pair.image, pair.mask)]
        table.writerow([*paths, *([] if pair.part is None else [SPLIT[pair.part]])])
    return text.getvalue()
