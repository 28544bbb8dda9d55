"""A dataset as the store keeps it."""

from bonsai.stages.data.preprocess import Preprocess, Shape
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.registry import DEFAULT
from bonsai.stages.tasks.task import DataSpec


class Dataset(Artifact):
    """Images and labels, split once and for all.

    Files: ``{train,validation,test}.safetensors`` with `images` (n, c, h, w) uint8 and `labels` (n,) int64.

    Attributes:
        preprocess: How the images become what the network takes; the exported network takes the same.
        task: What the labels are for; whatever trains or judges on the dataset asks this task.
    """

    name: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    sizes: dict[str, int]
    licence: str
    task: str = DEFAULT

    @property
    def image_shape(self) -> Shape:
        """(channels, height, width)."""
        return self.preprocess.image_shape

    @property
    def spec(self) -> DataSpec:
        """What networks, tasks and sources must know of the data."""
        return DataSpec(self.image_shape, len(self.classes), self.preprocess)
