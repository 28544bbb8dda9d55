"""From a file or an array to a network's input, the same way in training, measurement and on the device.

This file needs NumPy and Pillow alone, and imports nothing of Bonsai: a package carries it as it is. Every function takes a `Preprocess`
(`stages/data/preprocess.py`), or anything else with the same attributes, such as what ``json.load`` returns of a package's manifest in a
``types.SimpleNamespace``.

    inputs = to_input(read_image("cat.jpg", preprocess), preprocess)    # (c, h, w) float32
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageOps

File = str | Path | BinaryIO
IGNORED = 255
"""Class index of a mask's pixels that count neither in training nor in the metric."""
BLACK = 0
ORIENTATION = 0x0112
"""Tag of EXIF; 1 is upright."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for each number of channels that an image file can be read with."""
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}


class Preprocessing(Protocol):
    """What the functions below ask of a `Preprocess`."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    @property
    def size(self) -> Sequence[int]:
        """(height, width), or (length,) of a series: what the network takes."""
        ...

    @property
    def full(self) -> Sequence[int] | None:
        """(height, width) that images get before they are made smaller to `size`; None where they are not."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """Subtracted from each channel."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """What each channel is divided by."""
        ...

    @property
    def resize(self) -> str:
        """``stretch``, ``crop`` or ``pad``."""
        ...

    @property
    def crop(self) -> float:
        """Share of the resized image's side that the centre crop keeps."""
        ...

    @property
    def interpolation(self) -> str:
        """A name of `INTERPOLATIONS`."""
        ...

    @property
    def scale(self) -> float | Sequence[float]:
        """White, where black is 0; or (black, white)."""
        ...

    @property
    def deep(self) -> Mapping[str, float]:
        """White in files of more than 8 bits, by `kind_of`."""
        ...


def read_image(file: File, preprocess: Preprocessing) -> np.ndarray:
    """Return an image file as (channels, height, width), in the type of `array_type`.

    The image is turned as its EXIF tag says. Transparent pixels become white, unless there are 4 channels. Of an animation, the first frame counts.

    Args:
        file: Path, or a file opened to be read in binary.
        preprocess: Channels, size and scale.

    Raises:
        OSError, ValueError, SyntaxError, EOFError, struct.error or PIL.Image.DecompressionBombError: The file is no image, or a broken one, or
            one of more than 8 bits whose white is not known.
    """
    with quietly_opened(file) as opened:
        return to_array(opened, preprocess)


def to_array(opened: Image.Image, preprocess: Preprocessing) -> np.ndarray:
    """Return an opened image as `read_image` does.

    Raises:
        ValueError: It has more than 8 bits and its white is not known, or no image has so many channels.
    """
    if preprocess.channels not in MODES or len(preprocess.size) != 2:
        shape = (preprocess.channels, *preprocess.size)
        raise ValueError(f"an image file is read as (1, 3 or 4 channels, height, width), not as {shape}; read such data from .npy files")
    kind = kind_of(opened)
    image = _upright(opened)
    keeps_depth = array_type(preprocess) != np.uint8
    if kind in ("grey", "fractions") and not keeps_depth:
        if kind not in preprocess.deep:
            raise ValueError("an image of more than 8 bits, and it is not known which value stands for white; convert it to 8 bits")
        image = to_bytes(image, preprocess.deep[kind])
    if keeps_depth:
        planes = [fit(plane, preprocess) for plane in _deep_planes(image, kind, preprocess)]
        return shrink(_as_type(np.stack([np.asarray(plane) for plane in planes]), preprocess), preprocess)
    pixels = np.asarray(fit(_in_channels(image, preprocess.channels), preprocess))
    return shrink(pixels.reshape(*full_size(preprocess), preprocess.channels).transpose(2, 0, 1), preprocess)


def read_array(file: File, preprocess: Preprocessing) -> np.ndarray:
    """Return an ``.npy`` file of (channels, height, width) or (channels, length) in the type of `array_type`.

    Raises:
        OSError or ValueError: The file is no such array.
    """
    return as_sample(np.load(file, allow_pickle=False), preprocess)


def as_sample(array: np.ndarray, preprocess: Preprocessing) -> np.ndarray:
    """Return an array (channels, height, width) or (channels, length) in the type of `array_type`, made smaller where `preprocess` says so.

    Raises:
        ValueError: It has another shape, holds no numbers, or values beyond black and white.
    """
    shape = (preprocess.channels, *full_size(preprocess))
    if array.shape != shape or array.dtype.kind not in "buif":
        raise ValueError(f"an array of {array.dtype} {array.shape}; the network takes numbers of shape {shape}")
    (black, white), low, high = black_and_white(preprocess), array.min(), array.max()
    if not (low >= black and high <= white):  # so that NaN is refused too
        raise ValueError(f"values from {low:g} to {high:g}; `scale` allows {black:g} to {white:g}")
    kind = array_type(preprocess)
    if array.dtype.kind == "f" and kind.kind != "f":
        raise ValueError(f"fractions, where `scale` {white:g} means whole numbers; say it as [0, {white:g}]")
    return shrink(array.astype(kind, copy=False), preprocess)


def full_size(preprocess: Preprocessing) -> Sequence[int]:
    """Return the height and width of images, or the length of series, before they are made smaller."""
    return preprocess.size if preprocess.full is None else preprocess.full


def shrink(array: np.ndarray, preprocess: Preprocessing) -> np.ndarray:
    """Return an image (channels, height, width) of the size `full` in the size `size`, of the same type; as it is, where nothing is made smaller.

    Pillow's bilinear interpolation weighs every pixel that a new one covers.
    """
    if preprocess.full is None:
        return array
    height, width = preprocess.size
    wide = array if array.dtype == np.uint8 else array.astype(np.float32)
    planes = [Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.BILINEAR) for plane in wide]
    found = np.stack([np.asarray(plane) for plane in planes])
    return found if array.dtype == np.uint8 else _as_type(found, preprocess)


def read_mask(file: File, preprocess: Preprocessing) -> np.ndarray:
    """Return a mask of class indices as (height, width) uint8, resized and cropped as its image is; what padding adds is `IGNORED`.

    Raises:
        As for `read_image`; ValueError too where the file has colours instead of indices.
    """
    with quietly_opened(file) as opened:
        return to_mask(opened, preprocess)


def to_mask(opened: Image.Image, preprocess: Preprocessing) -> np.ndarray:
    """Return an opened image as `read_mask` does.

    Raises:
        ValueError: It has colours instead of indices.
    """
    mask = _upright(opened)
    if mask.mode not in ("1", "L", "P"):
        raise ValueError(f"a mask of mode {mask.mode}; a mask has one channel of class indices from 0 to 254, and 255 for pixels that do not count")
    indices = Image.fromarray(np.asarray(mask).astype(np.uint8))  # a palette would be resized by its colours
    return np.array(fit(indices, preprocess, interpolation="nearest", fill=IGNORED))


def to_input(array: np.ndarray, preprocess: Preprocessing) -> np.ndarray:
    """Return what a network takes, float32 of the same shape: values scaled to [0, 1] from black to white, minus `mean`, over `std`.

    Args:
        array: (channels, height, width) or (channels, length), or a batch of them.
        preprocess: Shape, scale, mean and std.

    Raises:
        ValueError: The array has another shape.
    """
    shape = (preprocess.channels, *preprocess.size)
    if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:
        raise ValueError(f"an array of shape {array.shape}; the network takes {shape}, or a batch of it")
    black, white = black_and_white(preprocess)
    mean, std = (np.array(values, np.float32).reshape(-1, *(1,) * len(preprocess.size)) for values in (preprocess.mean, preprocess.std))
    values = array.astype(np.float32)
    if black:
        values -= np.float32(black)
    values /= np.float32(white - black)
    values -= mean
    values /= std
    return values


def black_and_white(preprocess: Preprocessing) -> tuple[float, float]:
    """Return the values that stand for black and for white."""
    if isinstance(preprocess.scale, int | float):
        return float(BLACK), float(preprocess.scale)
    black, white = preprocess.scale
    return float(black), float(white)


def array_type(preprocess: Preprocessing) -> np.dtype:
    """Return the type of samples before `to_input`: uint8 for scale 255, uint16 for whole numbers from 256 to 65535, else float32."""
    scale = preprocess.scale
    if not isinstance(scale, int | float) or scale % 1 or not np.iinfo(np.uint8).max <= scale <= np.iinfo(np.uint16).max:
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if scale == np.iinfo(np.uint8).max else np.uint16)


@contextmanager
def quietly_opened(file: File) -> Iterator[Image.Image]:
    """Open an image, however large: a large photograph is no attack, for the files are the user's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as opened:
            yield opened


def kind_of(image: Image.Image) -> str:
    """Return the kind of an opened image of more than 8 bits, or an empty text for one of 8; no pixel is read.

    Returns:
        ``grey``: integers; ``fractions``: floats; ``colour``: 16-bit colours, of which Pillow keeps only the high byte.
    """
    if image.mode.startswith("F"):
        return "fractions"
    if image.mode.startswith("I"):
        return "grey"
    return "colour" if len(image.getbands()) > 1 and any(";16" in str(tile) for tile in getattr(image, "tile", ())) else ""


def to_bytes(image: Image.Image, white: float) -> Image.Image:
    """Return a deep grey image with 8 bits: 0 stays black, `white` becomes 255."""
    pixels = np.asarray(image).astype(np.float64)
    return Image.fromarray((pixels * 255 / white).clip(0, 255).astype(np.uint8))


def fit(image: Image.Image, preprocess: Preprocessing, *, interpolation: str | None = None, fill: float = BLACK) -> Image.Image:
    """Return an image resized to a box, of which the centre crop keeps the share `crop`, as torchvision and timm do.

    Args:
        image: Of any size.
        preprocess: Size, resize, crop and interpolation.
        interpolation: Instead of that of `preprocess`.
        fill: Value of what padding adds.
    """
    height, width = full_size(preprocess)
    box_height, box_width = (int(side / preprocess.crop + 1e-6) for side in (height, width))
    how = INTERPOLATIONS[interpolation or preprocess.interpolation]
    if preprocess.resize == "stretch":
        image = image.resize((box_width, box_height), how)
    else:
        image = image.resize(_kept_aspect(image.size, (box_width, box_height), covers=preprocess.resize == "crop"), how)
        image = _padded(image, (box_width, box_height), fill)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image if (left, top) == (0, 0) and image.size == (width, height) else image.crop((left, top, left + width, top + height))


def _kept_aspect(size: tuple[int, int], box: tuple[int, int], *, covers: bool) -> tuple[int, int]:
    """Return (width, height) that covers the box, or fits into it; one side is the box's own, the other keeps the aspect ratio."""
    (width, height), (box_width, box_height) = size, box
    by_width = (box_width * height > box_height * width) == covers  # the side whose factor is the larger one, or the smaller one
    if by_width:
        return box_width, max(int(box_width * height / width), box_height if covers else 1)
    return max(int(box_height * width / height), box_width if covers else 1), box_height


def _padded(image: Image.Image, box: tuple[int, int], fill: float) -> Image.Image:
    width, height = (max(side, least) for side, least in zip(image.size, box, strict=True))
    if (width, height) == image.size:
        return image
    colour = fill if len(image.getbands()) == 1 else (round(fill),) * len(image.getbands())
    padded = Image.new(image.mode, (width, height), colour)
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return padded


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of 8 bits in the mode of so many channels; where alpha is no channel, it is laid on white."""
    if channels == 4:
        return (image if image.has_transparency_data else image.convert("RGB")).convert("RGBA")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])  # a copy costs as much as a tenth of the decoding


def _upright(opened: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF tag says; most have none, and are not copied."""
    return opened if opened.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(opened)


def _deep_planes(image: Image.Image, kind: str, preprocess: Preprocessing) -> list[Image.Image]:
    """Return the channels as images of floats: a deep one's own values, one of 8 bits scaled from black to white."""
    if kind in ("grey", "fractions"):
        return [Image.fromarray(np.asarray(image).astype(np.float32))] * preprocess.channels
    black, white = black_and_white(preprocess)
    planes = _in_channels(image, preprocess.channels).split()
    return [Image.fromarray(np.asarray(plane).astype(np.float32) * np.float32((white - black) / 255) + np.float32(black)) for plane in planes]


def _as_type(values: np.ndarray, preprocess: Preprocessing) -> np.ndarray:
    """Return floats (c, h, w) in the type of the samples; bicubic interpolation may have left the range of whole numbers."""
    kind = array_type(preprocess)
    if kind == np.float32:
        return values
    return values.round().clip(0, np.iinfo(kind).max).astype(kind)
