"""A dataset as the store keeps it."""

from typing import Any

from pydantic import field_serializer

from bonsai.stages.data.preprocess import Preprocess, Shape
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.registry import DEFAULT
from bonsai.stages.tasks.task import DataSpec


class Dataset(Artifact):
    """Images and targets, split once and for all.

    Files: ``{train,validation,test}.safetensors`` with `images` (n, c, h, w) uint8 and `labels`, the targets (n, ...) in the task's type.

    Attributes:
        preprocess: How the images become the network's input. The exported network takes the same input.
        task: The task that the targets are for; it has the loss and the metric.
        task_code: Digest of a task of the user's own; empty for one of Bonsai's.
    """

    name: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    sizes: dict[str, int]
    licence: str
    task: str = DEFAULT
    task_code: str = ""

    @field_serializer("preprocess")
    def _without_defaults(self, preprocess: Preprocess) -> dict[str, Any]:
        """Keep the digest of a dataset whose preprocessing says nothing new."""
        return preprocess.model_dump(exclude_defaults=True)

    @property
    def image_shape(self) -> Shape:
        """(channels, height, width) or (channels, length)."""
        return self.preprocess.image_shape

    @property
    def spec(self) -> DataSpec:
        """What networks, tasks and sources must know of the data."""
        return DataSpec(self.image_shape, len(self.classes), self.preprocess)
