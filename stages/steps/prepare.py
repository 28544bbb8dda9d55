"""Stage `prepare`: load the images and split them once and for all."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.config import FILES, DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import LOADERS, TEST, TRAIN, VALIDATION, LoadedImages, root_of
from bonsai.stages.imports.declared import in_place, places_of
from bonsai.stages.imports.reading import warning_of_undeclared
from bonsai.stages.imports.registry import resolve
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.store.store import stage
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.tasks.registry import DEFAULT, task_named

TOO_SMALL = "the dataset is too small for a stratified split"
MORE = "add images to the smallest classes or remove these classes, or change data.validation and data.test"
TOO_FEW, ADD = "the dataset is too small for a split", "add images, or change data.validation and data.test"


def figures_of(dataset: Dataset) -> str:
    """Return which images these are and how many, in a few words."""
    return f"{dataset.name}, {sum(dataset.sizes.values())} images, {len(dataset.classes)} classes"


@stage(version=3, tools=("numpy", "scikit-learn", "pillow", "torch"), figures=figures_of)
def prepare(out_dir: Path, data: DataConfig, content: str, task: str = DEFAULT, task_code: str = "") -> Dataset:
    """Write the train, validation and test split of a dataset, stratified as the task asks for.

    Args:
        out_dir: Receives one file per part.
        data: Which images.
        content: Digest of the files they come from (`source_digest`), so that changed files are another input.
        task: Name of the task that the labels are for.
        task_code: Digest of the code of a task of the user's own (`code_digest`), so that a changed loss or metric is another input.

    Raises:
        ConfigError: The dataset or one of its options does not exist, or a class is too small to split.
    """
    loaded = load_images(data, task)
    parts = split_images(task_named(task).strata(loaded.labels.numpy()), len(loaded.images), loaded.parts, loaded.classes, data)
    for name, indices in parts.items():
        tensors = {"images": loaded.images[indices].contiguous(), "labels": loaded.labels[indices].contiguous()}
        with written_plainly(out_dir / f"{name}.safetensors"):
            save_file(tensors, out_dir / f"{name}.safetensors")
    channels, height, width = loaded.images.shape[1:]
    return Dataset(
        folder=out_dir,
        name=data.name,
        preprocess=Preprocess.of((channels, height, width)),
        classes=loaded.classes,
        sizes={name: len(indices) for name, indices in parts.items()},
        licence=loaded.licence,
        task=task,
        task_code=task_code,
    )


def load_images(data: DataConfig, task: str = DEFAULT) -> LoadedImages:
    """Call the dataset's loader with the recipe's options, and check what it returns.

    Raises:
        ConfigError: The loader cannot be called, raises something, or returns what the task cannot be trained on.
    """
    root, options = root_of(data), in_place(data.options, data.files, data.content, FILES)
    with warning_of_undeclared(data.name, FILES, [*places_of(data.files, data.content, FILES), *([root] if root else [])]):
        loader = resolve(data.name, LOADERS, "dataset")
        with user_code(
            f"data.options do not fit dataset {data.name!r}",
            given=f"data.options {data.options}",
            allowed="a loader that takes what data.options names",
            fix="see `bonsai list datasets`; or mend the line named above, if the loader is yours",
            passing=(OSError,) if data.name in LOADERS else (),
        ):
            return check_loaded(loader(**options), data.name, task_named(task))


def split_images(strata: np.ndarray | None, num_images: int, parts: torch.Tensor | None, classes: tuple[str, ...], data: DataConfig) -> dict[str, torch.Tensor]:
    """Return the indices of each part, sorted; what a dataset that comes split lacks is drawn from its training images.

    Args:
        strata: (n,) int64, labels whose shares are the same in every part; None for a plain random split.
        num_images: n.
        parts: The same as in `LoadedImages`.
        classes: Names, for messages.
        data: Shares and seed.

    Raises:
        ConfigError: A stratum has no image in a part that is drawn, or a part has none at all.
    """
    whole = np.full(num_images, TRAIN) if parts is None else parts.numpy().copy()
    for part, share in ((TEST, data.test), (VALIDATION, data.validation / (1 - data.test) if parts is None else data.validation)):
        if not (whole == part).any():
            whole[_draw(np.flatnonzero(whole == TRAIN), strata, share, data, classes)] = part
    found = {name: np.flatnonzero(whole == part) for name, part in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))}
    if strata is not None and (parts is None or len(np.unique(parts.numpy())) < len(found)):
        _require_every_stratum(found, strata, classes)
    return {name: torch.from_numpy(indices) for name, indices in found.items()}


def _draw(indices: np.ndarray, strata: np.ndarray | None, share: float, data: DataConfig, classes: tuple[str, ...]) -> np.ndarray:
    """Draw a share of images, of every stratum where there are strata."""
    from sklearn.model_selection import train_test_split  # here: its import costs a second, and what is prepared already needs none of it

    try:
        _, drawn = train_test_split(indices, test_size=share, stratify=None if strata is None else strata[indices], random_state=data.seed)
    except ValueError as error:
        if strata is None:
            raise ConfigError(describe(TOO_FEW, given=f"{len(indices)} images to draw from ({error})", allowed="an image in every part", fix=ADD)) from error
        counts = np.bincount(strata[indices], minlength=len(classes))
        smallest = ", ".join(f"{_named(label, classes)} {counts[label]}" for label in counts.argsort(kind="stable")[:5])
        given = f"{len(indices)} images to draw from, the smallest classes: {smallest} ({error})"
        raise ConfigError(describe(TOO_SMALL, given=given, allowed="several images of every class in every part", fix=MORE)) from error
    return np.asarray(drawn)


def _require_every_stratum(parts: dict[str, np.ndarray], strata: np.ndarray, classes: tuple[str, ...]) -> None:
    counts = np.bincount(strata, minlength=len(classes))
    needed = range(len(classes)) if strata.max() < len(classes) else np.flatnonzero(counts).tolist()
    lacking = {label: name for name, indices in parts.items() for label in needed if not (strata[indices] == label).any()}
    if lacking:
        shown = ", ".join(f"{_named(label, classes)} ({counts[label]} images, none for {part})" for label, part in list(lacking.items())[:5])
        raise ConfigError(describe(TOO_SMALL, given=shown, allowed="at least one image of every class in every part", fix=MORE))


def _named(stratum: int, classes: tuple[str, ...]) -> str:
    """Return the name of a stratum: a class, or the rest."""
    return classes[stratum] if stratum < len(classes) else "others"
