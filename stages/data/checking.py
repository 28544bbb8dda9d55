"""Checks what a loader returns, once: types, shapes, kinds of numbers, ranges, targets, names.

`check_batch` looks at images with their targets, `check_sample` at one of them; both return the images as uint8. `check_loaded` adds what holds
for a whole dataset. The task says which targets it has.
"""

from typing import Any

import numpy as np
import torch

from bonsai.profiles.errors import ConfigError, describe, shorten
from bonsai.stages.data.registry import TEST, TRAIN, LoadedImages, ValueRange
from bonsai.stages.tasks.registry import DEFAULT, task_named
from bonsai.stages.tasks.task import DataSpec, Task

SLICE = 512
"""Number of images that are checked and scaled at a time."""
LONGEST_NAME = 1_000
IMAGES = "(n, channels, height, width) as a torch tensor: uint8, or other numbers with LoadedImages(..., value_range=(black, white))"
LABELS = "a torch tensor with the targets of all images, the images first"
RETURNED = "bonsai.stages.data.registry.LoadedImages(images, labels, classes, licence)"


def check_loaded(loaded: object, name: str, task: Task) -> LoadedImages:
    """Return what a loader returned, its images as uint8, and its targets in the task's type.

    Args:
        loaded: Whatever it returned.
        name: Name of the dataset, for messages.
        task: The task that the targets are for.

    Raises:
        ConfigError: It is nothing that the task can be trained on; the message says what to change.
    """
    place = f"dataset {name!r}"
    if not isinstance(loaded, LoadedImages):
        raise _refusal(place, "its loader returns something else", _kind(loaded), RETURNED, _way_from(loaded))
    classes = _checked_classes(loaded.classes, place)
    images, targets = check_batch(loaded.images, loaded.labels, classes, task, value_range=loaded.value_range, place=place)
    if not isinstance(loaded.licence, str):
        raise _refusal(place, "the licence is no text", _kind(loaded.licence), "a text", "say what may be done with the images")
    _check_parts(loaded.parts, len(images), place)
    parts = None if loaded.parts is None else _plain(loaded.parts)
    return LoadedImages(images, targets, classes, loaded.licence, parts)


def check_sample(image: object, label: object, classes: tuple[str, ...], *, value_range: ValueRange | None = None, place: str) -> torch.Tensor:
    """Return one image of a classification as (channels, height, width) uint8.

    Args:
        image: (channels, height, width).
        label: Its class, counted from 0.
        classes: Names of all classes.
        value_range: Values that stand for black and white; None for uint8.
        place: Name of the sample in messages.

    Raises:
        ConfigError: It is no image, or no class.
    """
    if not isinstance(image, torch.Tensor) or image.ndim != 3:
        raise _refusal(place, "no image", _kind(image), "(channels, height, width) as a torch tensor", _way_from(image))
    if isinstance(label, bool) or not isinstance(label, int):
        raise _refusal(place, "no label", _kind(label), "a whole number, the image's class counted from 0", "return one class for each image")
    if not 0 <= label < len(classes):
        raise _refusal(place, "a label names no class", label, f"0 to {len(classes) - 1}", "count the classes from 0")
    images, _ = check_batch(image[None], torch.tensor([label]), classes, task_named(DEFAULT), value_range=value_range, place=place)
    return images[0]


def check_batch(
    images: object, targets: object, classes: tuple[str, ...], task: Task, *, value_range: ValueRange | None = None, place: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images as (n, channels, height, width) uint8, and their targets in the task's type.

    Args:
        images: (n, channels, height, width).
        targets: (n, ...), as the task has them.
        classes: Names of all classes, labels or figures.
        task: The task that the targets are for.
        value_range: Values that stand for black and white; None for uint8.
        place: Name of the images in messages.

    Raises:
        ConfigError: They are no images, or no targets; the message says what to change.
    """
    _check_shape(images, place)
    assert isinstance(images, torch.Tensor)
    spec = DataSpec((images.shape[1], images.shape[2], images.shape[3]), len(classes))
    checked = _check_targets(targets, len(images), classes, task, spec, place)
    return _as_bytes(_plain(images), value_range, place), checked


def _check_shape(images: object, place: str) -> None:
    if not isinstance(images, torch.Tensor):
        raise _refusal(place, "images are no torch tensor", _kind(images), IMAGES, _way_from(images))
    shape = tuple(images.shape)
    if images.layout != torch.strided or images.is_quantized or images.is_complex() or images.device.type != "cpu":
        given = f"{_kind(images)}, {images.layout} on {images.device}"
        raise _refusal(place, "images are no plain tensor", given, f"{IMAGES}, dense, in main memory", "convert them: images.to_dense(), images.cpu()")
    if len(shape) == 3:
        fix = "images without colour need a channel: images[:, None]; a time series or a table is no image"
        raise _refusal(place, "images have no channels, or are none", _kind(images), IMAGES, fix)
    if len(shape) != 4 or 0 in shape:
        raise _refusal(place, "images have another shape", _kind(images), f"{IMAGES}; at least one of each", "return one tensor with all images")
    if shape[3] in (1, 3, 4) and min(shape[1:3]) > 4:
        raise _refusal(place, "the channels stand last", _kind(images), IMAGES, "put them first: images.permute(0, 3, 1, 2)")


def _check_targets(targets: object, num_images: int, classes: tuple[str, ...], task: Task, spec: DataSpec, place: str) -> torch.Tensor:
    if not isinstance(targets, torch.Tensor):
        raise _refusal(
            place, "labels are no torch tensor", _kind(targets), LABELS, "convert them: torch.as_tensor(labels); classes: torch.as_tensor(labels).long()"
        )
    if targets.layout != torch.strided or targets.is_quantized or targets.is_complex() or targets.device.type != "cpu":
        given = f"{_kind(targets)}, {targets.layout} on {targets.device}"
        raise _refusal(place, "labels are no plain tensor", given, f"{LABELS}, dense, in main memory", "convert them: labels.to_dense(), labels.cpu()")
    if not targets.ndim or len(targets) != num_images:
        given = f"{num_images} images, labels {_kind(targets)}"
        raise _refusal(place, "there are not as many labels as images", given, LABELS, "return the targets of each image, in the same order")
    plain = _plain(targets)
    try:
        return torch.from_numpy(np.ascontiguousarray(task.check_targets((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy(), spec, classes)))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _as_bytes(images: torch.Tensor, value_range: ValueRange | None, place: str) -> torch.Tensor:
    """Return images whose shape is checked as uint8."""
    if images.dtype == torch.bool:
        fix = "for black and white images return images.to(torch.uint8) * 255"
        raise _refusal(place, "images are truth values", _kind(images), IMAGES, fix)
    low, high = _extremes(images, place)
    if value_range is None:
        _require_bytes(images, low, high, place)
        return images
    black, white = _range(value_range, place)
    if low < black or high > white:
        fix = "state the range that the values can have, or clip them"
        raise _refusal(place, "images have values outside their value_range", f"{low:g} to {high:g}", f"{black:g} to {white:g}", fix)
    scaled = torch.empty(images.shape, dtype=torch.uint8)
    for start in range(0, len(images), SLICE):
        part = images[start : start + SLICE].to(torch.float64)
        scaled[start : start + SLICE] = ((part - black) * (255 / (white - black))).round().to(torch.uint8)
    return scaled


def _require_bytes(images: torch.Tensor, low: float, high: float, place: str) -> None:
    given = f"{_kind(images)}, {low:g} to {high:g}"
    if images.dtype == torch.uint8 and high > 1:
        return
    likely = next((f"(0, {white})" for white in (1, 255, 1023, 4095, 16383, 65535) if high <= white), "(black, white)") if low >= 0 else "(black, white)"
    fix = f"state which values stand for black and white, such as LoadedImages(..., value_range={likely}), or return uint8 from 0 to 255"
    if images.dtype == torch.uint8:
        raise _refusal(place, "images are all but black: no value is above 1", given, "uint8 from 0 to 255", fix)
    raise _refusal(place, "images are no uint8, and their range is not stated", given, IMAGES, fix)


def _extremes(images: torch.Tensor, place: str) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN and infinity are refused with the number of the first image that has one."""
    low, high = np.inf, -np.inf
    for start in range(0, len(images), SLICE):
        part = images[start : start + SLICE]
        part = part if part.dtype == torch.uint8 else part.to(torch.float64)
        least, most = (float(value) for value in part.aminmax())
        if not np.isfinite([least, most]).all():
            number = start + int((~part.flatten(1).isfinite().all(1)).nonzero()[0])
            raise _refusal(place, "images have NaN or infinite values", f"image {number}", "finite numbers", "mend the loader, or leave these images out")
        low, high = min(low, least), max(high, most)
    return low, high


def _range(value_range: object, place: str) -> tuple[float, float]:
    numbers = value_range if isinstance(value_range, tuple | list) else ()
    if len(numbers) == 2 and all(isinstance(n, int | float) and np.isfinite(n) for n in numbers) and numbers[0] < numbers[1]:
        return float(numbers[0]), float(numbers[1])
    allowed = "two numbers, the first below the second: (black, white)"
    raise _refusal(place, "value_range is no range", shorten(repr(value_range)), allowed, "state which values stand for black and white, such as (0, 1)")


def _checked_classes(classes: object, place: str) -> tuple[str, ...]:
    allowed = "a tuple of different texts"
    if not isinstance(classes, tuple | list) or not classes:
        fix = "name every class, label or figure once, in their order"
        raise _refusal(place, "classes are no names", shorten(repr(classes)), allowed, fix)
    for name in classes:
        if not isinstance(name, str):
            raise _refusal(place, "a class name is no text", f"{name!r}, {_kind(name)}", allowed, "convert the names: tuple(str(name) for name in classes)")
        if not name.strip() or len(name) > LONGEST_NAME or any("\ud800" <= letter <= "\udfff" for letter in name):
            fix = f"give it a name of 1 to {LONGEST_NAME} characters; a folder's name must be UTF-8"
            raise _refusal(place, "a class name is empty, too long, or no Unicode", shorten(repr(name)), allowed, fix)
    names = tuple(str(name) for name in classes)
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise _refusal(place, "two classes have one name", repr(twice), allowed, "rename or merge them")
    return names


def _check_parts(parts: object, num_images: int, place: str) -> None:
    allowed = f"None, or (n,) int64 with {TRAIN} for training, 1 for validation and {TEST} for test images"
    if parts is None:
        return
    if not isinstance(parts, torch.Tensor) or parts.dtype != torch.int64 or parts.shape != (num_images,):
        raise _refusal(place, "parts do not fit the images", f"{_kind(parts)}, {num_images} images", allowed, "return one part for each image")
    found = sorted(set(parts.tolist()))
    if not set(found) <= {TRAIN, 1, TEST} or TRAIN not in found:
        raise _refusal(place, "parts name no training images, or unknown parts", shorten(str(found)), allowed, "mark the images to train on with 0")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without its gradient, and without what a subclass adds."""
    return tensor.detach().as_subclass(torch.Tensor)


def _kind(value: Any) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"numpy {value.dtype} {list(value.shape)}"
    module = type(value).__module__
    name = type(value).__qualname__ if module == "builtins" else f"{module}.{type(value).__qualname__}"
    return f"{name} of {len(value)}" if isinstance(value, tuple | list | dict) else name


def _way_from(value: object) -> str:
    """Return what to do with something that is no image, or no dataset."""
    if isinstance(value, torch.utils.data.DataLoader):
        return "go through it once and return all images and labels: torch.cat of its batches, in a LoadedImages"
    if isinstance(value, torch.utils.data.Dataset):
        return "stack its samples: torch.stack([image for image, _ in dataset]), in a LoadedImages"
    if isinstance(value, np.ndarray):
        return "convert it: torch.from_numpy(images)"
    if isinstance(value, tuple) and len(value) in (2, 3, 4, 5):
        return "name its parts: LoadedImages(images, labels, classes, licence)"
    return "return all images in one tensor, in a LoadedImages; docs/your-own-model.md has an example"


def _refusal(place: str, problem: str, given: object, allowed: str, fix: str) -> ConfigError:
    return ConfigError(describe(f"{place}: {problem}", given=given, allowed=allowed, fix=fix))
