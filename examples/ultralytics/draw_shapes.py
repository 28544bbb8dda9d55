"""Draws discs and squares with their boxes, in the folders that Ultralytics reads."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COUNTS = {"train": 240, "val": 64}
NAMES = ("disc", "square")


def draw_shapes(folder: str, *, size: int) -> str:
    """Draw one to three shapes on each image, and return the file that describes the set.

    Args:
        folder: Receives the images and their boxes.
        size: Edge of the images in pixels.
    """
    root = Path(folder).resolve()
    rng = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = Image.fromarray(rng.integers(0, 60, (size, size, 3), dtype=np.uint8))
            lines = []
            for _ in range(rng.integers(1, 4)):
                side, name = int(rng.integers(size // 5, size // 2)), int(rng.integers(len(NAMES)))
                left, top = (int(place) for place in rng.integers(0, size - side, 2))
                paint = (ImageDraw.Draw(image).ellipse, ImageDraw.Draw(image).rectangle)[name]
                paint((left, top, left + side, top + side), fill=tuple(int(level) for level in rng.integers(120, 255, 3)))
                lines.append(f"{name} {(left + side / 2) / size} {(top + side / 2) / size} {side / size} {side / size}")
            image.save(root / "images" / part / f"{number}.png")
            (root / "labels" / part / f"{number}.txt").write_text("\n".join(lines))
    file = root / "shapes.yaml"
    file.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return str(file)
