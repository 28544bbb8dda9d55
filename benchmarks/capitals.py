"""The 26 capitals of `glyphs`: a set that a small network learns in a few hundred steps, where the 62 characters of `glyphs` take more than a thousand."""

import torch

from bonsai.stages.data.glyphs import CLASSES, load_glyphs
from bonsai.stages.data.registry import LoadedImages

CAPITALS = tuple(name for name in CLASSES if name.isupper())


def load(train: int = 1600, validation: int = 400, test: int = 2000, size: int = 32) -> LoadedImages:
    """Render about so many images of each part, as many of each class as of any other."""
    counts = {"train": train, "validation": validation, "test": test}
    found = load_glyphs(**{part: round(count / len(CAPITALS)) * len(CLASSES) for part, count in counts.items()}, size=size)
    first = CLASSES.index(CAPITALS[0])
    wanted = (found.labels >= first) & (found.labels < first + len(CAPITALS))
    assert isinstance(found.parts, torch.Tensor)
    return LoadedImages(found.images[wanted], found.labels[wanted] - first, CAPITALS, found.licence, found.parts[wanted])
