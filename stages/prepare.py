"""Stage `prepare`: load the images and split them once and for all."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.model_selection import train_test_split

from profiles.errors import ConfigError, describe
from stages.artifacts import Dataset
from stages.data.config import DataConfig
from stages.data.registry import LOADERS, TEST, TRAIN, VALIDATION, LoadedImages
from stages.registry import resolve
from stages.store import stage


@stage(version=1, tools=("numpy", "scikit-learn", "pillow", "torch"))
def prepare(out_dir: Path, data: DataConfig, content: str) -> Dataset:
    """Write the stratified train, validation and test split of a dataset.

    Args:
        out_dir: Receives one file per part.
        data: Which images.
        content: Digest of the files they come from (`source_digest`), so that changed files are another input.

    Raises:
        ConfigError: The dataset or one of its options does not exist, or a class is too small to split.
    """
    loaded = load_images(data)
    parts = _split(loaded, data)
    for name, indices in parts.items():
        tensors = {"images": loaded.images[indices].contiguous(), "labels": loaded.labels[indices].contiguous()}
        save_file(tensors, out_dir / f"{name}.safetensors")
    channels, height, width = loaded.images.shape[1:]
    return Dataset(
        folder=out_dir,
        name=data.name,
        image_shape=(channels, height, width),
        classes=loaded.classes,
        sizes={name: len(indices) for name, indices in parts.items()},
        licence=loaded.licence,
    )


def load_images(data: DataConfig) -> LoadedImages:
    """Call the dataset's loader with the recipe's options."""
    loader = resolve(data.name, LOADERS, "dataset")
    try:
        loaded: LoadedImages = loader(**data.options)
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            describe(f"data.options do not fit dataset {data.name!r}", given=data.options, allowed=str(error), fix="see `bonsai list datasets`")
        ) from error
    return loaded


def _split(loaded: LoadedImages, data: DataConfig) -> dict[str, torch.Tensor]:
    if loaded.parts is not None:
        return {name: torch.nonzero(loaded.parts == part).flatten() for name, part in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))}
    indices, labels = np.arange(len(loaded.labels)), loaded.labels.numpy()
    try:
        rest, test = train_test_split(indices, test_size=data.test, stratify=labels, random_state=data.seed)
        share = data.validation / (1 - data.test)
        train, validation = train_test_split(rest, test_size=share, stratify=labels[rest], random_state=data.seed)
    except ValueError as error:
        raise ConfigError(
            describe(
                "the dataset is too small for a stratified split",
                given=error,
                allowed="several images of every class in every part",
                fix="add images, or change data.validation and data.test",
            )
        ) from error
    return {name: torch.from_numpy(np.sort(part)) for name, part in (("train", train), ("validation", validation), ("test", test))}
