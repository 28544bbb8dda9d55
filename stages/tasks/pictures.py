"""Draws small pictures with NumPy alone."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from bonsai.stages.tasks.results_table import Picture

SIDE = 64
"""Largest height and width of one image in a picture, in pixels."""
GREY = "grey"
"""Word for the pixels of the first class, and for those that do not count: they stay grey."""
COLOURS = {
    "orange": (230, 85, 13),
    "blue": (49, 130, 189),
    "green": (49, 163, 84),
    "violet": (117, 107, 177),
    "yellow": (222, 203, 28),
    "turquoise": (20, 175, 170),
    "pink": (214, 39, 120),
    "brown": (140, 86, 75),
}
"""Colours of the classes from the second on, by their word; after the last they start again."""


def colour_of(number: int) -> str:
    """Return the word for the colour of a class, which is counted from 0."""
    return GREY if number == 0 else list(COLOURS)[(number - 1) % len(COLOURS)]


def grey_or_colour(image: np.ndarray) -> np.ndarray:
    """Return an image (c, h, w) of any range as (h, w, 3) uint8, its values stretched to 0 to 255; of other than 3 channels the first is shown, in grey."""
    shown = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    low, high = float(shown.min()), float(shown.max())
    return ((shown - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8).transpose(1, 2, 0)


def painted(image: np.ndarray, mask: np.ndarray, ignored: int) -> np.ndarray:
    """Return an image (h, w, 3) uint8 in grey, with the classes of a mask (h, w) in colour over it; `ignored` pixels stay grey."""
    grey = image.mean(2, keepdims=True)
    colours = np.array(list(COLOURS.values()))[(mask - 1) % len(COLOURS)]
    over = ((mask > 0) & (mask != ignored))[..., None]
    return np.where(over, 0.4 * grey + 0.6 * colours, np.repeat(grey, 3, axis=2)).round().astype(np.uint8)


def beside(images: Sequence[np.ndarray], title: str) -> Picture:
    """Return images (h, w, 3) uint8 of one size as one picture, from left to right; larger ones are thinned out to `SIDE`."""
    every = max(-(-max(images[0].shape[:2]) // SIDE), 1)
    row = np.concatenate([image[::every, ::every] for image in images], axis=1)
    return Picture(title=title, png=base64.b64encode(write_png(row)).decode(), width=row.shape[1], height=row.shape[0])


def write_png(image: np.ndarray) -> bytes:
    """Return an image (h, w, 3) uint8 as a PNG file."""
    height, width, _ = image.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)  # each line begins with its filter: none
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
