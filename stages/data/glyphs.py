"""Letters and digits rendered from the text faces that matplotlib ships, disturbed so that networks do not saturate.

62 classes (0-9, A-Z, a-z), of which some can hardly be told apart without context (0 O o, 1 I l, case pairs): no network
reaches 100 %. Every image depends on the seed and its own number alone.
"""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION, LoadedImages

CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_DEJAVU = [f"DejaVu{family}{style}" for family in ("Sans", "SansMono") for style in ("", "-Bold", "-Oblique", "-BoldOblique")]
_SERIF = [f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")]
_OTHERS = ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"]
FACES = (*_DEJAVU, *_SERIF, *_OTHERS)
UNSEEN = ("DejaVuSansMono-Oblique", "DejaVuSerif-Bold", "STIXGeneralItalic", "cmss10")
"""Typefaces that appear only in test images. The other test images use typefaces that training also sees."""
CANVAS = 2  # glyphs are drawn at twice the final size


class _Look(NamedTuple):
    """How one image is disturbed."""

    face: str
    text: str
    size: float
    corners: np.ndarray
    blur: float
    contrast: float
    inverted: bool
    light: np.ndarray
    noise: float


def load_glyphs(*, train: int = 12400, validation: int = 2480, test: int = 4960, size: int = 32, seed: int = 0) -> LoadedImages:
    """Render the set: grey images of `size` pixels a side, as many of each class as of any other.

    Args:
        train: Training images.
        validation: Validation images, in the faces of training.
        test: Test images; about a third in faces that training does not see.
        size: Side in pixels.
        seed: Seed of all random numbers.
    """
    seen = tuple(face for face in FACES if face not in UNSEEN)
    images, labels, parts = [], [], []
    for part, count in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
        for index in range(count):
            rng = np.random.default_rng((seed, part, index))
            label = index % len(CLASSES)
            unseen = part == TEST and (index // len(CLASSES)) % 3 == 0
            images.append(_render(_draw_look(rng, CLASSES[label], UNSEEN if unseen else seen), size, rng))
            labels.append(label)
            parts.append(part)
    licence = "rendered from DejaVu (Bitstream Vera licence), STIX (SIL OFL 1.1) and Computer Modern (AMS) faces: free to use"
    return LoadedImages(torch.from_numpy(np.stack(images))[:, None], torch.tensor(labels), CLASSES, licence, torch.tensor(parts))


def _draw_look(rng: np.random.Generator, glyph: str, faces: tuple[str, ...]) -> _Look:
    neighbours = rng.choice(CLASSES, 2)
    text = (neighbours[0] if rng.random() < 0.6 else " ") + glyph + (neighbours[1] if rng.random() < 0.6 else " ")
    angle, shear = rng.normal(0, 9) * math.pi / 180, rng.normal(0, 0.15)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) @ np.array([[1, shear], [0, 1]])
    square = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], dtype=float)  # the order of PIL's QUAD
    corners = (square * rng.uniform(0.85, 1.2, 2)) @ turn.T + rng.normal(0, 0.08, (4, 2)) + rng.normal(0, 0.08, 2)
    return _Look(
        face=str(rng.choice(faces)),
        text=text,
        size=rng.uniform(0.62, 0.85),
        corners=corners,
        blur=rng.uniform(0, 1.1),
        contrast=rng.uniform(0.25, 1.0),
        inverted=bool(rng.random() < 0.5),
        light=rng.normal(0, 0.18, 2),
        noise=rng.uniform(0.01, 0.12),
    )


def _render(look: _Look, size: int, rng: np.random.Generator) -> np.ndarray:
    side = CANVAS * size
    canvas = Image.new("L", (side, side), 0)
    font = _font(look.face, round(look.size * side))
    draw = ImageDraw.Draw(canvas)
    left, glyph, right = tuple(look.text)
    width = draw.textlength(glyph, font=font)
    baseline = side * 0.72
    draw.text((side / 2, baseline), glyph, font=font, fill=255, anchor="ms")
    draw.text((side / 2 - width / 2 - side * 0.04, baseline), left, font=font, fill=255, anchor="rs")
    draw.text((side / 2 + width / 2 + side * 0.04, baseline), right, font=font, fill=255, anchor="ls")
    quad = tuple(((look.corners + 1) * side / 2).flatten())
    small = canvas.transform((size, size), Image.Transform.QUAD, quad, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(look.blur))
    ink = np.asarray(small, dtype=np.float64) / 255
    grey = 0.5 + (ink - 0.5) * look.contrast * (-1 if look.inverted else 1)
    ramp = np.linspace(-1, 1, size)
    grey = grey + look.light[0] * ramp[:, None] + look.light[1] * ramp[None] + rng.normal(0, look.noise, grey.shape)
    return np.asarray((grey.clip(0, 1) * 255).round(), dtype=np.uint8)


_fonts: dict[tuple[str, int], ImageFont.FreeTypeFont] = {}


def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    if (face, pixels) not in _fonts:
        _fonts[face, pixels] = ImageFont.truetype(fonts_folder() / f"{face}.ttf", pixels, layout_engine=ImageFont.Layout.BASIC)
    return _fonts[face, pixels]


def fonts_folder() -> Path:
    """Return where matplotlib's faces lie; it is not imported, because that writes to the user's home."""
    spec = find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
