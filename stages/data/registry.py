"""Datasets by name. A loader returns a `LoadedImages`; its keyword arguments are the recipe's `data.options`."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bonsai.stages.data.config import DataConfig
from bonsai.stages.imports.contents import digest_of, files_at

if TYPE_CHECKING:  # a list of names needs no torch
    import torch

LOADERS = {
    "digits": "bonsai.stages.data.digits:load_digits",
    "glyphs": "bonsai.stages.data.glyphs:load_glyphs",
    "image_folder": "bonsai.stages.data.image_folder:load_image_folder",
}

ROOT = "data.options.root"
TRAIN, VALIDATION, TEST = range(3)


ValueRange = tuple[float, float]
"""The values that stand for black and for white."""


class LoadedImages(NamedTuple):
    """All images of a dataset, before the split. `stages/data/checking.py` says what is refused, and why.

    Attributes:
        images: (n, c, h, w) uint8; or other numbers, of which `value_range` says what they stand for.
        labels: The targets, (n, ...), as the task has them: for a classification (n,) int64, indices into `classes`.
        classes: Names of the classes, labels or figures; any text.
        licence: Licence of the images.
        parts: (n,) TRAIN, VALIDATION or TEST, for a dataset that comes split; None leaves the split to the recipe, and where VALIDATION
            or TEST is missing, its share is taken from TRAIN.
        value_range: Values that stand for black and white, such as (0, 1) or (0, 65535): images are scaled from them to uint8. None for uint8.
    """

    images: "torch.Tensor"
    labels: "torch.Tensor"
    classes: tuple[str, ...]
    licence: str
    parts: "torch.Tensor | None" = None
    value_range: ValueRange | None = None


def source_digest(data: DataConfig) -> str:
    """Return the digest of the file or folder `options.root` that a dataset is loaded from, or an empty text where it has none.

    Contents count, and the paths within the folder, which name the classes; times do not, so that a copy or a `touch` changes nothing. Names that
    begin with a dot count for a loader of the user's own alone, since Bonsai's pass over them.

    Raises:
        ConfigError: A file cannot be read.
    """
    root = root_of(data)
    return digest_of(files_at(root, ROOT, hidden=data.name not in LOADERS), ROOT) if root is not None else ""


def root_of(data: DataConfig) -> Path | None:
    """Return what `options.root` leads to, or None where there is nothing."""
    root = data.options.get("root")
    return Path(root) if isinstance(root, str) and root and Path(root).exists() else None
