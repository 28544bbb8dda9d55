"""Datasets by name. A loader returns a `LoadedImages`; its keyword arguments are the recipe's `data.options`."""

from pathlib import Path
from typing import NamedTuple

import torch

from stages.artifacts import sha256_text
from stages.data.config import DataConfig

LOADERS = {
    "digits": "stages.data.digits:load_digits",
    "glyphs": "stages.data.glyphs:load_glyphs",
    "image_folder": "stages.data.image_folder:load_image_folder",
}


TRAIN, VALIDATION, TEST = range(3)


ValueRange = tuple[float, float]
"""The values that stand for black and for white."""


class LoadedImages(NamedTuple):
    """All images of a dataset, before the split. `stages/data/checking.py` says what is refused, and why.

    Attributes:
        images: (n, c, h, w) uint8; or other numbers, of which `value_range` says what they stand for.
        labels: (n,) int64, indices into `classes`.
        classes: Names, at least two; any text.
        licence: What may be done with the images.
        parts: (n,) TRAIN, VALIDATION or TEST, for a dataset that comes split; None leaves the split to the recipe, and where VALIDATION
            or TEST is missing, its share is taken from TRAIN.
        value_range: Values that stand for black and white, such as (0, 1) or (0, 65535): images are scaled from them to uint8. None for uint8.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    licence: str
    parts: torch.Tensor | None = None
    value_range: ValueRange | None = None


def source_digest(data: DataConfig) -> str:
    """Return a digest of the files that a dataset is loaded from, or an empty text where it has none of its own.

    Names, sizes and times of change stand for the contents, so that a changed folder is loaded anew.
    """
    root = Path(str(data.options.get("root", "")))
    if "root" not in data.options or not root.is_dir():
        return ""
    facts = [(file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(root.rglob("*")) if file.is_file()]
    return sha256_text(repr(facts))
