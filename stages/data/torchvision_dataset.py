"""Datasets that torchvision can read, from files that lie here already: nothing is downloaded."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.stages.data.how import make_preprocess
from bonsai.stages.data.registry import LoadedDatasets, MapStyle

CHOICES = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
"""What datasets call the parts of a set in their argument `split`."""


def load_torchvision_dataset(
    *,
    root: str,
    dataset: str,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
    resize: str | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] = (),
    **arguments: Any,
) -> LoadedDatasets:
    """Open a dataset of `torchvision.datasets`, in the parts that it comes in.

    Args:
        root: Folder of the files, as torchvision lays them out.
        dataset: Name of the class, such as ``CIFAR10``, ``FashionMNIST`` or ``OxfordIIITPet``.
        size: As for `image_folder`; that of the first image where it is not given.
        channels: 3 for colour, 1 for grey, 4 for colour with alpha; those of the first image where they are not given.
        resize: As in `Preprocess`, like all that follows.
        crop: Share of the side that the centre crop keeps.
        interpolation: Of the resizing.
        mean: For each channel.
        std: For each channel.
        classes: Names of the classes, where the dataset has none.
        arguments: Further arguments of the class, such as ``target_types: segmentation``.

    Raises:
        ConfigError: There is no such dataset, or its files are not there.
    """
    parts = _open_parts(dataset, root, arguments)
    first = next(iter(parts.values()))
    image = first[0][0]
    if not isinstance(image, Image.Image):
        raise _refusal("this dataset has no images", type(image).__name__, "datasets of PIL images", "write a loader of your own: docs/data.md")
    names = tuple(map(str, classes)) or tuple(_plain_name(name) for name in getattr(first, "classes", ()))
    if not names:
        names = tuple(map(str, range(int(max(np.max(_labels(part)) for part in parts.values())) + 1)))
    preprocess = make_preprocess(
        size or (image.height, image.width),
        channels or (1 if image.mode in ("1", "L") else 3),
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )
    whole: MapStyle | dict[str, MapStyle] = dict(parts) if "train" in parts else first
    return LoadedDatasets(whole, names, f"of torchvision's {dataset}: not stated", preprocess=preprocess)


def _open_parts(name: str, root: str, arguments: dict[str, Any]) -> dict[str, MapStyle]:
    from torchvision import datasets  # here, for its import takes a second

    known = sorted(
        key for key in datasets.__all__ if inspect.isclass(getattr(datasets, key)) and "root" in inspect.signature(getattr(datasets, key)).parameters
    )
    if name not in known:
        raise _refusal(f"torchvision has no dataset of this name{suggestion(name, known)}", name, ", ".join(known), "correct data.options.dataset")
    factory = getattr(datasets, name)
    takes = inspect.signature(factory).parameters
    given = {**arguments, **({"download": False} if "download" in takes else {})}
    if "train" in takes and "train" not in arguments:
        return {part: _open(factory, root, {**given, "train": part == "train"}) for part in ("train", "test")}
    split = takes.get("split")
    if split is None or "split" in arguments or split.default not in {word for words in CHOICES.values() for word in words}:
        return {"whole": _open(factory, root, given)}
    found = {part: opened for part, words in CHOICES.items() if (opened := _open_first(factory, root, given, words)) is not None}
    if "train" not in found:
        raise _refusal(f"{name} has no part to train on", ", ".join(found) or "no part", "a dataset with a part train", "choose a part: data.options.split")
    return found


def _open_first(factory: Any, root: str, given: dict[str, Any], words: Sequence[str]) -> MapStyle | None:
    """Return the part of the first name that the dataset knows."""
    for word in words:
        try:
            return _open(factory, root, {**given, "split": word})
        except ConfigError:  # the files are not there
            raise
        except ValueError:  # torchvision's word for a part that a dataset does not have
            continue
    return None


def _open(factory: Any, root: str, arguments: dict[str, Any]) -> MapStyle:
    try:
        opened: MapStyle = factory(root, **arguments)
    except (RuntimeError, FileNotFoundError) as error:
        told = str(error).partition("\n")[0].partition(" You can use download")[0]
        allowed = f"the files of torchvision's {factory.__name__}, laid out as torchvision does"
        fix = "put the files there; Bonsai downloads nothing"
        raise _refusal("the dataset's files are not there", f"{Path(root).resolve()} ({told})", allowed, fix) from error
    return opened


def _labels(dataset: MapStyle) -> list[int]:
    return [int(dataset[number][1]) for number in range(len(dataset))]


def _plain_name(name: object) -> str:
    """Return a class's name; some datasets have a tuple of several for each, of which the first is the usual one."""
    return str(name[0] if isinstance(name, tuple) else name)


def _refusal(problem: str, given: object, allowed: str, fix: str) -> ConfigError:
    return ConfigError(describe(f"data.options: {problem}", given=given, allowed=allowed, fix=fix))
