"""Converts images of more than 8 bits to 8 bits, and finds the value of white in them.

A file tells its number type, but not how many bits the camera used: a 16-bit file may hold 12-bit values. So white is the next of 1023, 4095, 16383 and
65535 above the largest value of the whole folder, or 1 for floats. `data.options.white` sets another value.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bonsai.profiles.errors import ConfigError, describe

WHOLE_BITS = (8, 10, 12, 14, 16, 24, 32)
SHALLOW = 128
"""If the high bytes of all 16-bit colours are below this, the image is refused: Pillow keeps only the high byte, and most of the information would be lost."""


class Values(NamedTuple):
    """The pixel values of one or more images.

    Attributes:
        kind: ``grey``: integers; ``fractions``: floats; ``colour``: 16-bit colours, of which Pillow keeps only the high byte.
        low: Smallest value.
        high: Largest value.
        file: File with the largest value.
    """

    kind: str
    low: float
    high: float
    file: Path


class Depth(NamedTuple):
    """How the deep images of a folder are read.

    Attributes:
        white: Value that stands for white, by kind.
        sentences: Information for the user, one sentence per kind.
    """

    white: dict[str, float]
    sentences: tuple[str, ...]


def values_of(image: Image.Image, kind: str, file: Path) -> Values:
    """Return the smallest and the largest value of an image.

    Raises:
        ValueError: It has NaN or infinite values.
    """
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("NaN or infinite values")
    return Values(kind, low, high, file)


def find_depth(found: Iterable[Values], white: float | None = None) -> Depth:
    """Return which value stands for white in the deep images of a folder.

    Args:
        found: Their values.
        white: Value of white in the recipe; if None, it is found.

    Raises:
        ConfigError: It cannot be told, or a value lies outside what is stated.
    """
    whites: dict[str, float] = {}
    sentences = []
    found = list(found)
    for kind in dict.fromkeys(values.kind for values in found):
        those = [values for values in found if values.kind == kind]
        low, high = min(those, key=lambda values: values.low), max(those, key=lambda values: values.high)
        if kind == "colour":
            _require_full_colour(high)
            continue
        stated = white if white is not None else _white_of(kind, high)
        if low.low < 0 or stated is None or high.high > stated:
            raise _refusal(kind, low, high, stated)
        whites[kind] = stated
        origin = "data.options.white says" if white is not None else f"the largest value is {high.high:g}; data.options.white states another"
        name = "grey images of more than 8 bits" if kind == "grey" else "images of fractions"
        sentences.append(f"{len(those)} {name}: {stated:g} is white ({origin})")
    return Depth(whites, tuple(sentences))


def _white_of(kind: str, high: Values) -> float | None:
    if kind == "fractions":
        return 1.0 if high.high <= 1 else None
    return next((float(2**bits - 1) for bits in WHOLE_BITS if high.high < 2**bits), None)


def _require_full_colour(high: Values) -> None:
    if high.high < SHALLOW:
        raise ConfigError(
            describe(
                "colour images of 16 bits use few of them, and Pillow keeps only the high byte",
                given=f"{high.file}: the high byte is at most {high.high:g}",
                allowed="colours of 8 bits, or of 16 bits that are used to the end",
                fix="convert the images to 8 bits with a scale of your own",
            )
        )


def _refusal(kind: str, low: Values, high: Values, stated: float | None) -> ConfigError:
    given = f"{low.low:g} in {low.file} to {high.high:g} in {high.file}"
    allowed = f"0 to {stated:g}" if stated is not None else "fractions from 0 to 1, or a white that data.options states"
    name = "grey images of more than 8 bits" if kind == "grey" else "images of fractions"
    fix = "state the value that stands for white, `data.options.white`, or convert the images to 8 bits"
    return ConfigError(describe(f"{name}: which value stands for white cannot be told", given=given, allowed=allowed, fix=fix))
