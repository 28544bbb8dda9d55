"""A set to judge defaults on: 40 letters and digits as folders of images, drawn so that a small network comes to about 95 %.

    python benchmarks/letters.py FOLDER      # 10,600 PNG files of 48 pixels in train/, val/ and test/, the same at every call

Faces are those that matplotlib ships. Every image depends on its class and number alone. Classes that only a neighbour tells apart (0 and O,
1 and l, c and C) are left out.
"""

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from bonsai.stages.data.glyphs import FACES, fonts_folder

CLASSES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abdefghnqrt" + "247")
PARTS = {"train": 152, "val": 13, "test": 100}
"""Images of every class. The test part is larger than a user's would be, so that the differences between two ways can be seen."""
SIDE = 48
DRAWN = 2
"""Letters are drawn at so many times the final size."""


def draw_letters(folder: Path) -> None:
    """Write the images of every part and class; those that are there already are left as they are."""
    for part, (name, count) in enumerate(PARTS.items()):
        for label, letter in enumerate(CLASSES):
            place = folder / name / f"{label:02d}-{ord(letter):02x}"  # some file systems take `a` and `A` for one name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                file = place / f"{number:03d}.png"
                if not file.exists():
                    draw(letter, np.random.default_rng((part, label, number))).save(file)


def draw(letter: str, rng: np.random.Generator) -> Image.Image:
    """Return one grey image of `SIDE` pixels."""
    side = DRAWN * SIDE
    font = ImageFont.truetype(fonts_folder() / f"{rng.choice(FACES)}.ttf", round(side * rng.uniform(0.55, 0.85)), layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (side, side), 0)
    ImageDraw.Draw(canvas).text((side / 2, side * 0.72), letter, font=font, fill=255, anchor="ms")
    angle, shear = rng.normal(0, 10) * math.pi / 180, rng.normal(0, 0.15)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) @ np.array([[1, shear], [0, 1]])
    square = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], dtype=float)  # the order of PIL's QUAD
    corners = (square * rng.uniform(0.85, 1.2, 2)) @ turn.T + rng.normal(0, 0.07, (4, 2)) + rng.normal(0, 0.07, 2)
    quad = tuple(((corners + 1) * side / 2).flatten())
    small = canvas.transform((SIDE, SIDE), Image.Transform.QUAD, quad, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.0)))
    grey = 0.5 + (np.asarray(small, dtype=np.float64) / 255 - 0.5) * rng.uniform(0.35, 1.0) * rng.choice((-1, 1))
    ramp = np.linspace(-1, 1, SIDE)
    grey = grey + rng.normal(0, 0.12) * ramp[:, None] + rng.normal(0, 0.12) * ramp[None] + rng.normal(0, rng.uniform(0.01, 0.1), grey.shape)
    return Image.fromarray((grey.clip(0, 1) * 255).round().astype(np.uint8))


if __name__ == "__main__":
    draw_letters(Path(sys.argv[1]))
