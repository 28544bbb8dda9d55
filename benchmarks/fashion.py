"""Fashion-MNIST from local files, as Debian's package `dataset-fashion-mnist` has them: 60,000 + 10,000 grey pictures of 28 pixels in ten classes."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from bonsai.stages.data.registry import TEST, TRAIN, LoadedImages

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
HEADERS = {"images-idx3": 16, "labels-idx1": 8}
"""Bytes in front of the values, by kind of file."""


def load(root: str = str(DEBIAN), train: int = 60_000, test: int = 10_000, *, halved: bool = False) -> LoadedImages:
    """Load the first `train` training images and the first `test` test images; they lie in no order. Halved ones have 14 pixels, each the mean of four."""
    counts = {"train": train, "t10k": test}
    images = [_read(Path(root), part, "images-idx3").reshape(-1, 1, 28, 28)[:count] for part, count in counts.items()]
    labels = [_read(Path(root), part, "labels-idx1")[:count] for part, count in counts.items()]
    parts = np.repeat([TRAIN, TEST], [len(part) for part in labels])
    pixels, targets = (torch.from_numpy(np.concatenate(found)) for found in (images, labels))
    if halved:
        pixels = avg_pool2d(pixels.float(), 2).round().to(torch.uint8)
    return LoadedImages(pixels, targets.long(), CLASSES, licence="MIT, Zalando SE", parts=torch.from_numpy(parts))


def _read(root: Path, part: str, kind: str) -> np.ndarray:
    with gzip.open(root / f"{part}-{kind}-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=HEADERS[kind])
