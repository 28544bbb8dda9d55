"""Checks what a loader returns, once: types, shapes, kinds of numbers, ranges, labels, names.

`check_batch` looks at images with their labels, `check_sample` at one of them; both return the images as uint8. `check_loaded` adds what holds
for a whole dataset.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bonsai.profiles.errors import ConfigError, describe, shorten
from bonsai.stages.data.registry import TEST, TRAIN, LoadedImages, ValueRange

SLICE = 512
"""Number of images that are checked and scaled at a time."""
LONGEST_NAME = 1_000
IMAGES = "(n, channels, height, width) as a torch tensor: uint8, or other numbers with LoadedImages(..., value_range=(black, white))"
LABELS = "(n,) int64 as a torch tensor: one class for each image, counted from 0"
RETURNED = "bonsai.stages.data.registry.LoadedImages(images, labels, classes, licence)"


def check_loaded(loaded: object, name: str) -> LoadedImages:
    """Return what a loader returned, its images as uint8.

    Args:
        loaded: Whatever it returned.
        name: Name of the dataset, for messages.

    Raises:
        ConfigError: It is nothing that a classifier can be trained on; the message says what to change.
    """
    place = f"dataset {name!r}"
    if not isinstance(loaded, LoadedImages):
        raise _refusal(place, "its loader returns something else", _kind(loaded), RETURNED, _way_from(loaded))
    classes = _checked_classes(loaded.classes, place)
    images = check_batch(loaded.images, loaded.labels, classes, value_range=loaded.value_range, place=place)
    if not isinstance(loaded.licence, str):
        raise _refusal(place, "the licence is no text", _kind(loaded.licence), "a text", "say what may be done with the images")
    _check_parts(loaded.parts, len(images), place)
    parts = None if loaded.parts is None else _plain(loaded.parts)
    return LoadedImages(images, _plain(loaded.labels), classes, loaded.licence, parts)


def check_sample(image: object, label: object, classes: Sequence[str], *, value_range: ValueRange | None = None, place: str) -> torch.Tensor:
    """Return one image as (channels, height, width) uint8.

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
    return check_batch(image[None], torch.tensor([label]), classes, value_range=value_range, place=place)[0]


def check_batch(images: object, labels: object, classes: Sequence[str], *, value_range: ValueRange | None = None, place: str) -> torch.Tensor:
    """Return images as (n, channels, height, width) uint8.

    Args:
        images: (n, channels, height, width).
        labels: (n,) int64, indices into `classes`.
        classes: Names of all classes.
        value_range: Values that stand for black and white; None for uint8.
        place: Name of the images in messages.

    Raises:
        ConfigError: They are no images, or no labels; the message says what to change.
    """
    _check_shape(images, place)
    assert isinstance(images, torch.Tensor)
    _check_labels(labels, len(images), classes, place)
    return _as_bytes(_plain(images), value_range, place)


def _check_shape(images: object, place: str) -> None:
    if not isinstance(images, torch.Tensor):
        raise _refusal(place, "images are no torch tensor", _kind(images), IMAGES, _way_from(images))
    shape = tuple(images.shape)
    if images.layout != torch.strided or images.is_quantized or images.is_complex() or images.device.type != "cpu":
        given = f"{_kind(images)}, {images.layout} on {images.device}"
        raise _refusal(place, "images are no plain tensor", given, f"{IMAGES}, dense, in main memory", "convert them: images.to_dense(), images.cpu()")
    if len(shape) == 3:
        fix = "images without colour need a channel: images[:, None]; a time series or a table is no image, and Bonsai compresses image classifiers"
        raise _refusal(place, "images have no channels, or are none", _kind(images), IMAGES, fix)
    if len(shape) != 4 or 0 in shape:
        raise _refusal(place, "images have another shape", _kind(images), f"{IMAGES}; at least one of each", "return one tensor with all images")
    if shape[3] in (1, 3, 4) and min(shape[1:3]) > 4:
        raise _refusal(place, "the channels stand last", _kind(images), IMAGES, "put them first: images.permute(0, 3, 1, 2)")


def _check_labels(labels: object, num_images: int, classes: Sequence[str], place: str) -> None:
    if not isinstance(labels, torch.Tensor):
        raise _refusal(place, "labels are no torch tensor", _kind(labels), LABELS, "convert them: torch.as_tensor(labels).long()")
    if labels.layout != torch.strided or labels.is_quantized or labels.device.type != "cpu":
        given = f"{_kind(labels)}, {labels.layout} on {labels.device}"
        raise _refusal(place, "labels are no plain tensor", given, f"{LABELS}, dense, in main memory", "convert them: labels.to_dense(), labels.cpu()")
    if labels.ndim >= 3:
        fix = "masks need a segmentation network; Bonsai compresses classifiers, so return one class for each image"
        raise _refusal(place, "labels are masks, or are none", _kind(labels), LABELS, fix)
    if labels.ndim == 2:
        fix = "one column: labels[:, 0]; one-hot rows: labels.argmax(1); several labels for one image are not supported"
        raise _refusal(place, "there are several labels for each image", _kind(labels), LABELS, fix)
    if labels.ndim != 1 or len(labels) != num_images:
        given = f"{num_images} images, labels {_kind(labels)}"
        raise _refusal(place, "there are not as many labels as images", given, LABELS, "return one label for each image, in the same order")
    if labels.is_floating_point() or labels.is_complex():
        fix = "targets of a regression are not supported; whole numbers: labels.long()"
        raise _refusal(place, "labels are no whole numbers", _kind(labels), LABELS, fix)
    if labels.dtype != torch.int64:
        raise _refusal(place, "labels are another kind of number", _kind(labels), LABELS, "convert them: labels.long()")
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < len(classes):
        return
    from_one = low == 1 and high == len(classes)
    fix = "the labels count from 1: subtract 1, labels - 1" if from_one else "count the classes from 0, and name every class in `classes`"
    given = f"{low} to {high}, and {len(classes)} classes"
    raise _refusal(place, "labels name classes that are not there", given, f"0 to {len(classes) - 1}", fix)


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
    allowed = "a tuple of at least two different texts"
    if not isinstance(classes, tuple | list) or len(classes) < 2:
        fix = "name every class once, in the order of the labels"
        raise _refusal(place, "classes are no names of at least two classes", shorten(repr(classes)), allowed, fix)
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
