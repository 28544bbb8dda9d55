"""A dataset as the store keeps it."""

from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.registry import DEFAULT

MEAN, STD = 0.5, 0.5
"""Normalisation of pixels in [0, 1]; the exported network takes images normalised like this."""


class Dataset(Artifact):
    """Images and labels, split once and for all.

    Files: ``{train,validation,test}.safetensors`` with `images` (n, c, h, w) uint8 and `labels` (n,) int64.

    Attributes:
        task: The task that the labels are for; it has the loss and the metric.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sizes: dict[str, int]
    licence: str
    task: str = DEFAULT
