"""Draws small pictures with NumPy alone."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from bonsai.stages.tasks.results_table import Picture

SIDE = 64
"""Largest height and width of one image in a picture, in pixels."""
COLOURS = np.array(
    [[0, 0, 0], [230, 85, 13], [49, 130, 189], [49, 163, 84], [117, 107, 177], [222, 203, 28], [20, 175, 170], [214, 39, 120], [140, 86, 75]], dtype=np.float64
)
"""Colours of classes; the first class leaves the image as it is."""


def grey_or_colour(image: np.ndarray) -> np.ndarray:
    """Return an image (c, h, w) of any range as (h, w, 3) uint8, its values stretched to 0 to 255; of other than 3 channels the first is shown, in grey."""
    shown = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    low, high = float(shown.min()), float(shown.max())
    return ((shown - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8).transpose(1, 2, 0)


def painted(image: np.ndarray, mask: np.ndarray, ignored: int) -> np.ndarray:
    """Return an image (h, w, 3) uint8 with the classes of a mask (h, w) in colour over it; `ignored` pixels stay."""
    colours = COLOURS[np.where(mask > 0, (mask - 1) % (len(COLOURS) - 1) + 1, 0)]
    over = ((mask > 0) & (mask != ignored))[..., None]
    return np.where(over, 0.4 * image + 0.6 * colours, image).round().astype(np.uint8)


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
