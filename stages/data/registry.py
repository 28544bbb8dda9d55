"""Datasets by name. A loader returns one of the three records below; its keyword arguments are the recipe's `data.options`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.imports.contents import digest_of, files_at
from bonsai.stages.imports.declared import announce

if TYPE_CHECKING:  # a list of names needs no torch
    import numpy as np
    import torch

LOADERS = {
    "array": "bonsai.stages.data.arrays:load_array",
    "csv": "bonsai.stages.data.csv_table:load_csv",
    "digits": "bonsai.stages.data.digits:load_digits",
    "glyphs": "bonsai.stages.data.glyphs:load_glyphs",
    "image_folder": "bonsai.stages.data.image_folder:load_image_folder",
    "scenes": "bonsai.stages.data.scenes:load_scenes",
    "torchvision_dataset": "bonsai.stages.data.torchvision_dataset:load_torchvision_dataset",
    "vibration": "bonsai.stages.data.vibration:load_vibration",
}

ROOT = "data.options.root"
TRAIN, VALIDATION, TEST = range(3)
PARTS = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
"""What the parts of a set that comes split may be called."""


ValueRange = tuple[float, float]
"""The values that stand for black and for white."""


class MapStyle(Protocol):
    """Samples by number, as torch's map-style datasets and NumPy's arrays are."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one sample."""
        ...


class LoadedImages(NamedTuple):
    """All images of a dataset, in memory, before the split. `stages/data/checking.py` says what is refused, and why.

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


class LoadedDatasets(NamedTuple):
    """Map-style datasets of (input, target): of any size, for samples are made when they are asked for.

    An input is a PIL image, or a tensor or array (c, h, w) or (c, t). A target is what the task takes, or the PIL image of a mask.

    Attributes:
        datasets: One dataset, which the recipe splits; or one for each of ``train``, ``val`` and ``test``, of which the last two may be missing.
        classes: Names; any text.
        licence: Licence of the data.
        value_range: Values that stand for black and white, such as (0, 1). None for uint8, and for PIL images.
        preprocess: How PIL images get their size, and mean and std of all inputs; None for inputs in [-1, 1] of the samples' own size.
    """

    datasets: MapStyle | Mapping[str, MapStyle]
    classes: tuple[str, ...]
    licence: str
    value_range: ValueRange | None = None
    preprocess: Preprocess | None = None


class LoadedSamples(NamedTuple):
    """Samples by number, each made when it is asked for, before the split.

    Attributes:
        samples: Map-style: ``[number]`` is (array, target), the array (c, h, w) or (c, t) in the type that `preprocess` says.
        targets: (n, ...), where they are known without making the samples; else None, as of masks.
        classes: Names; any text.
        licence: Licence of the data.
        preprocess: How arrays become inputs.
        parts: (n,) as of `LoadedImages`.
    """

    samples: MapStyle
    targets: "np.ndarray | None"
    classes: tuple[str, ...]
    licence: str
    preprocess: Preprocess
    parts: "np.ndarray | None" = None


def source_digest(data: DataConfig) -> str:
    """Return the digest of the file or folder `options.root` that a dataset is loaded from, or an empty text where it has none.

    Contents count, and the paths within the folder, which name the classes; times do not, so that a copy or a `touch` changes nothing. Names that
    begin with a dot count for a loader of the user's own alone, since Bonsai's pass over them.

    From here on `place_of` finds the root by this digest, here and in child processes.

    Raises:
        ConfigError: A file cannot be read.
    """
    root = root_of(data)
    if root is None:
        return ""
    digest = digest_of(files_at(root, ROOT, hidden=data.name not in LOADERS), ROOT)
    announce(digest, root)
    return digest


def root_of(data: DataConfig) -> Path | None:
    """Return what `options.root` leads to, or None where there is nothing."""
    root = data.options.get("root")
    return Path(root) if isinstance(root, str) and root and Path(root).exists() else None
