"""The 1,797 handwritten digits that ship with scikit-learn."""

import torch
from sklearn import datasets
from torch.nn import functional

from bonsai.stages.data.registry import LoadedImages


def load_digits(*, size: int = 32) -> LoadedImages:
    """Load the 8x8 images, enlarged to `size` pixels a side with bilinear interpolation, one channel."""
    bunch = datasets.load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(bunch.target).long()
    licence = "CC BY 4.0 (Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI)"
    return LoadedImages(images.round().clamp(0, 255).to(torch.uint8), labels, tuple(str(d) for d in range(10)), licence)
