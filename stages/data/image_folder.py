"""A folder of images, one sub-folder per class; or the same once more for each of `train`, `val` and `test`.

root/cat/1.jpg          split by the recipe
root/train/cat/1.jpg    split as it is; a part that is missing is taken from `train` by the recipe's share
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.files import SHOWN, SUFFIXES, look_at_files
from bonsai.stages.data.how import make_preprocess, require_image_channels
from bonsai.stages.data.packed_paths import PackedPaths
from bonsai.stages.data.registry import PARTS, TRAIN, LoadedSamples
from bonsai.stages.training.progress import say


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


def load_image_folder(
    *,
    root: str,
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
    """Find ``root/<class>/**/<image>``, or ``root/{train,val,test}/<class>/**/<image>``; every image gets one size.

    Images are turned as their EXIF tag says, transparent pixels become white, images of more than 8 bits are scaled to 8 (`stages/data/depth.py`) unless
    `scale` keeps them; of an animation the first frame counts. Names that begin with a dot are passed over.

    Args:
        root: The folder.
        size: Side of square images in pixels, or [height, width].
        channels: 3 for colour, 1 for grey, 4 for colour with alpha.
        white: Value that stands for white in images of more than 8 bits; found from the largest one otherwise.
        resize: As in `Preprocess`, like all that follows.
        crop: Share of the side that the centre crop keeps.
        interpolation: Of the resizing.
        scale: Value of white, or [black, white]; 65535 keeps images of 16 bits.
        mean: For each channel.
        std: For each channel.

    Raises:
        ConfigError: The folder does not exist, holds fewer than two classes, or a class without images; or it cannot be told what stands for white.
    """
    require_image_channels(channels)
    preprocess = make_preprocess(size, channels, resize=resize, crop=crop, interpolation=interpolation, scale=scale, mean=mean, std=std)
    folder = scan_folder(root)
    say(f"reading {len(folder.images)} images of {len(folder.classes)} classes" + (f"; {passed_over(folder)}" if folder.others else ""))
    paths = PackedPaths.of(image.path.relative_to(root).as_posix() for image in folder.images)
    labels = np.array([image.label for image in folder.images])
    files = look_at_files(Path(root), paths, preprocess, labels, white)
    parts = None if folder.images[0].part is None else np.array([image.part for image in folder.images])
    return LoadedSamples(files, labels, folder.classes, "of the user's own images: not stated", files.preprocess, parts)


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
