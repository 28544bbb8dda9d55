"""A folder of images, one sub-folder per class; or the same once more for each of `train`, `val` and `test`.

root/cat/1.jpg          split by the recipe
root/train/cat/1.jpg    split as it is; a part that is missing is taken from `train` by the recipe's share
"""

import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.depth import Depth, Values, find_depth, values_of
from bonsai.stages.data.pixels import kind_of, quietly_opened, read_image
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION, LoadedImages
from bonsai.stages.training.progress import say

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
PARTS = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
"""Errors that Pillow raises for files that are not images, or are broken."""
SHOWN = 5


class ImageFile(NamedTuple):
    """One image of the folder; `part` is None where the recipe splits."""

    path: Path
    label: int
    part: int | None


class Folder(NamedTuple):
    """What lies in an image folder.

    Attributes:
        images: Sorted by part, class and path.
        others: Files that are no images by their suffix.
    """

    images: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    others: tuple[Path, ...]

    def counts(self, part: int | None = None) -> dict[str, int]:
        """Return the number of images per class, in all or in one part."""
        found = Counter(image.label for image in self.images if part is None or image.part == part)
        return {name: found[label] for label, name in enumerate(self.classes)}


def load_image_folder(*, root: str, size: int = 64, channels: int = 3, white: float | None = None) -> LoadedImages:
    """Load ``root/<class>/**/<image>``, or ``root/{train,val,test}/<class>/**/<image>``, resized to `size` pixels a side.

    Images are turned as their EXIF tag says, transparent pixels become white, images of more than 8 bits are scaled to 8 (`stages/data/depth.py`);
    of an animation the first frame counts. Names that begin with a dot are passed over.

    Args:
        root: The folder.
        size: Side of the square images in pixels; the aspect ratio is not kept.
        channels: 3 for colour, 1 for grey.
        white: Value that stands for white in images of more than 8 bits; found from the largest one otherwise.

    Raises:
        ConfigError: The folder does not exist, holds fewer than two classes, a class without images, files that cannot be read, or values of
            which it cannot be told what stands for white.
    """
    if size < 1 or channels not in (1, 3):
        problem, given = "data.options: no such images", f"size {size}, channels {channels}"
        raise ConfigError(describe(problem, given=given, allowed="a size of at least 1, channels 1 or 3", fix="change data.options"))
    if white is not None and not 0 < white < float("inf"):
        raise ConfigError(describe("data.options.white: no such value", given=white, allowed="a number above 0", fix="change data.options"))
    folder = scan_folder(root)
    say(f"reading {len(folder.images)} images of {len(folder.classes)} classes" + (f"; {passed_over(folder)}" if folder.others else ""))
    pixels = np.empty((len(folder.images), channels, size, size), np.uint8)
    broken: list[str] = []
    deep = read_values(folder.images, broken)
    depth = find_depth(deep, white) if not broken else Depth({}, ())
    for sentence in depth.sentences:
        say(sentence)
    preprocess = Preprocess.of((channels, size, size)).model_copy(update={"deep": depth.white})
    for place, image in enumerate(folder.images):
        try:
            pixels[place] = read_image(image.path, preprocess)
        except UNREADABLE as error:
            broken.append(f"{image.path} ({error})")
    require_readable(list(dict.fromkeys(broken)), len(folder.images))
    labels = torch.tensor([image.label for image in folder.images])
    parts = None if folder.images[0].part is None else torch.tensor([image.part for image in folder.images])
    return LoadedImages(torch.from_numpy(pixels), labels, folder.classes, "of the user's own images: not stated", parts)


def read_values(images: Sequence[ImageFile], broken: list[str]) -> list[Values]:
    """Return what the pixels of the images of more than 8 bits hold.

    Args:
        images: All images.
        broken: Receives the path, and the reason, of each deep image that cannot be read.
    """
    found = []
    for image in images:
        try:
            with quietly_opened(image.path) as opened:
                kind = kind_of(opened)
                if kind:
                    found.append(values_of(opened, kind, image.path))
        except UNREADABLE as error:
            broken.append(f"{image.path} ({error})")
    return found


def require_readable(broken: Sequence[str], opened: int) -> None:
    """Check that every image could be opened.

    Args:
        broken: Paths of those that could not, each with its reason.
        opened: Number of files that were tried.

    Raises:
        ConfigError: Some could not; the first `SHOWN` are named.
    """
    if broken:
        raise ConfigError(
            describe(
                f"{len(broken)} of {opened} files cannot be read as an image",
                given="\n           ".join([*broken[:SHOWN], *([f"and {len(broken) - SHOWN} more"] if len(broken) > SHOWN else [])]),
                allowed="whole files, readable by you: " + ", ".join(SUFFIXES),
                fix="mend or remove the files",
            )
        )


def scan_folder(root: str | Path) -> Folder:
    """Find the images of a folder; none is opened.

    Raises:
        ConfigError: The folder does not exist, holds fewer than two classes, or a class without images.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise ConfigError(
            describe(
                "data.options.root: no such folder",
                given=folder if folder.is_absolute() else f"{root}, looked for as {folder.resolve()}",
                allowed="a folder with one sub-folder of images per class",
                fix="check the path",
            )
        )
    try:
        found = _scan(folder)
    except OSError as error:
        raise ConfigError(describe("data.options.root: cannot be read", given=error, allowed="folders that you may read", fix="check the rights")) from error
    _require_classes(found, folder)
    return found


def passed_over(folder: Folder) -> str:
    """Return which files are no images, in a few words."""
    return f"{len(folder.others)} files that are no images are passed over, such as {folder.others[0].name}"


def _scan(folder: Path) -> Folder:
    children = _folders(folder)
    parts = {child: PARTS[child.name.lower()] for child in children if child.name.lower() in PARTS}
    if not (len(parts) == len(children) and TRAIN in parts.values()):
        parts = {}
    if len(set(parts.values())) < len(parts):
        names = ", ".join(child.name for child in children)
        fix = "merge the two that mean the same"
        raise ConfigError(describe("data.options.root: one part is there twice", given=names, allowed="train, val and test, each once", fix=fix))
    classes = tuple(sorted({child.name for part in parts for child in _folders(part)} if parts else {child.name for child in children}))
    images, others = [], [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    for top in parts or (folder,):
        for label, name in enumerate(classes):
            for file in sorted((top / name).rglob("*")):
                if not file.is_file() or any(step.startswith(".") for step in file.relative_to(top).parts):
                    continue
                if file.suffix.lower() in SUFFIXES:
                    images.append(ImageFile(file, label, parts.get(top)))
                else:
                    others.append(file)
    return Folder(tuple(images), classes, tuple(others))


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".") and child.name != "__MACOSX")


def _require_classes(found: Folder, folder: Path) -> None:
    """Refuse what no classifier can be trained on."""
    if len(found.classes) < 2 or not found.images:
        raise ConfigError(
            describe(
                "data.options.root: fewer than two classes with images",
                given=f"{folder}: {len(found.classes)} sub-folders, {len(found.images)} images",
                allowed=f"at least two sub-folders that hold {', '.join(SUFFIXES)} files",
                fix="sort the images into one sub-folder per class",
            )
        )
    for part in sorted({image.part for image in found.images}, key=str):
        empty = [name for name, count in found.counts(part).items() if not count]
        if empty:
            where = "" if part is None else f" in {next(name for name, number in PARTS.items() if number == part)}/"
            raise ConfigError(
                describe(
                    f"data.options.root: a class without images{where}",
                    given=", ".join(empty[:SHOWN]) + (f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""),
                    allowed=f"at least one {', '.join(SUFFIXES)} file in every class",
                    fix="remove the empty folder, or put images into it",
                )
            )
