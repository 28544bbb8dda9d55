"""Reads samples from files when they are asked for: images, their masks, and arrays in ``.npy`` files."""

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.depth import Depth, Values, find_depth, values_of
from bonsai.stages.data.packed_paths import PackedPaths
from bonsai.stages.data.pixels import ORIENTATION, array_type, kind_of, quietly_opened, read_array, read_image, read_mask
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.training.progress import report, say

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
ARRAY = ".npy"
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
"""Errors that Pillow raises for files that are not images, or are broken."""
LYING = range(5, 9)
"""Values of the EXIF tag that swap width and height."""
SHOWN = 5
SECONDS = 5.0
"""Time between two lines of progress."""


class Files:
    """Samples by number, each an array with its target.

    Args:
        root: Folder that the paths start from.
        paths: Of the samples.
        preprocess: How files become arrays.
        targets: (n, ...), or the paths of masks.
        broken: Files that are known to be unreadable, each with its reason.

    Attributes:
        sizes: Bytes of each file, (n,) int64.
    """

    def __init__(
        self,
        root: Path,
        paths: PackedPaths,
        preprocess: Preprocess,
        targets: np.ndarray | PackedPaths,
        *,
        sizes: np.ndarray | None = None,
        broken: Sequence[str] = (),
    ) -> None:
        self.root, self.paths, self.preprocess, self.targets, self.broken = root, paths, preprocess, targets, tuple(broken)
        self.sizes = np.array([(root / paths[n]).stat().st_size for n in range(len(paths))], np.int64) if sizes is None else sizes

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, Any]:
        """Return a sample and its target.

        Raises:
            One of `UNREADABLE`: A file cannot be read.
        """
        file = self.root / self.paths[number]
        if file.stat().st_size != self.sizes[number]:
            raise ValueError("the file has another size than when it was found")
        return (read_array if file.suffix.lower() == ARRAY else read_image)(file, self.preprocess), self.target(number)

    def checked(self, number: int) -> tuple[np.ndarray, Any]:
        """Return a sample as ``[number]`` does, if its mask has the proportions of its image.

        Raises:
            One of `UNREADABLE`: A file cannot be read, or the mask is of another image.
        """
        if isinstance(self.targets, PackedPaths):
            require_proportions(self._size(self.paths[number]), self._size(self.targets[number]))
        return self[number]

    def target(self, number: int) -> Any:
        """Return a target alone."""
        if isinstance(self.targets, PackedPaths):
            return read_mask(self.root / self.targets[number], self.preprocess)
        return self.targets[number]

    def _size(self, path: str) -> tuple[int, int]:
        """Return width and height of an image, or those that an array must have."""
        if path.lower().endswith(ARRAY):
            return self.preprocess.size[-1], self.preprocess.size[0]
        with quietly_opened(self.root / path) as opened:
            return upright_size(opened)

    def chosen(self, numbers: np.ndarray) -> "Files":
        """Return some of the samples."""
        targets = self.targets.chosen(numbers) if isinstance(self.targets, PackedPaths) else self.targets[numbers]
        return Files(self.root, self.paths.chosen(numbers), self.preprocess, targets, sizes=self.sizes[numbers])

    def every_file(self) -> dict[str, Path]:
        """Return all files, masks too, by their paths."""
        names = [self.paths, *([self.targets] if isinstance(self.targets, PackedPaths) else [])]
        return {paths[number]: self.root / paths[number] for paths in names for number in range(len(paths))}


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image, turned as its EXIF tag says; no pixel is read."""
    return opened.size[::-1] if opened.getexif().get(ORIENTATION) in LYING else opened.size


def require_proportions(image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Check that a mask may be that of an image: it may be smaller or larger, each side rounded to whole pixels.

    Args:
        image: Width and height in pixels.
        mask: Likewise.

    Raises:
        ValueError: It has other proportions.
    """
    if abs(mask[0] * image[1] - mask[1] * image[0]) > sum(image):
        raise ValueError(f"a mask of {mask[0]}x{mask[1]} pixels for an image of {image[0]}x{image[1]}; both must have the same proportions")


def look_at_files(root: Path, paths: PackedPaths, preprocess: Preprocess, targets: np.ndarray | PackedPaths, white: float | None) -> Files:
    """Open every image to find those of more than 8 bits, and say which value stands for white in them.

    Args:
        root: Folder that the paths start from.
        paths: Of the samples.
        preprocess: How files become arrays; white is filled in.
        targets: (n, ...), or the paths of masks.
        white: Value of white in the recipe; found from the largest value otherwise.

    Raises:
        ConfigError: It cannot be told what stands for white.
    """
    if white is not None and not 0 < white < float("inf"):
        raise ConfigError(describe("data.options.white: no such value", given=white, allowed="a number above 0", fix="change data.options"))
    broken: list[str] = []
    images = [root / path for path in (paths[number] for number in range(len(paths))) if not path.lower().endswith(ARRAY)]
    deep = read_values(images, broken)
    depth = find_depth(deep, white) if array_type(preprocess) == np.uint8 and not broken else Depth({}, ())
    for sentence in depth.sentences:
        say(sentence)
    return Files(root, paths, preprocess.model_copy(update={"deep": depth.white}), targets, broken=broken)


def read_values(files: Sequence[Path], broken: list[str]) -> list[Values]:
    """Return what the pixels of the images of more than 8 bits hold.

    Args:
        files: All images.
        broken: Receives the path, and the reason, of each image that cannot be opened, or is deep and cannot be read.
    """
    found, shown = [], time.monotonic()
    for number, file in enumerate(files):
        if time.monotonic() - shown > SECONDS:
            shown = time.monotonic()
            report("looking at images", done=number, total=len(files), unit="file")
        try:
            with quietly_opened(file) as opened:
                kind = kind_of(opened)
                if kind:
                    found.append(values_of(opened, kind, file))
        except UNREADABLE as error:
            broken.append(f"{file} ({error})")
    return found


def require_readable(broken: Sequence[str], opened: int) -> None:
    """Check that every file could be read.

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
                allowed="whole files, readable by you: " + ", ".join((*SUFFIXES, ARRAY)),
                fix="mend or remove the files",
            )
        )
