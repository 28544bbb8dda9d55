"""The seam between Bonsai and where samples come from: any map-style `torch.utils.data.Dataset` that says what its samples are."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.tasks.task import DataSpec

Sample = tuple[torch.Tensor, Any]
"""An image (c, h, w), uint8 where the source has a `Preprocess`, else the input itself; and its target, which torch's `default_collate` can stack."""


class Source(Protocol):
    """Samples by number. One that also has torch's ``__getitems__(indices)`` gives a whole batch at once.

    A sample must be the same whenever it is asked for, in whatever process: training changes images at random by itself.
    """

    @property
    def spec(self) -> DataSpec:
        """What the samples are."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Return one sample."""
        ...


class PreparedImages(torch.utils.data.Dataset[Sample]):
    """A part of a prepared dataset, in memory.

    Args:
        dataset: Where the images lie.
        part: ``train``, ``validation`` or ``test``.

    Attributes:
        images: (n, c, h, w) uint8.
        targets: (n, ...), as the task has them.
    """

    def __init__(self, dataset: Dataset, part: str) -> None:
        tensors = load_file(dataset.folder / f"{part}.safetensors")
        self.spec, self.images, self.targets = dataset.spec, tensors["images"], tensors["labels"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Return an image with its target."""
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return several images with their targets; torch's own `DataLoader` asks for them like this too."""
        chosen = torch.as_tensor(indices)
        return list(zip(self.images[chosen].unbind(), self.targets[chosen].unbind(), strict=True))


def samples_at(source: Source, indices: Sequence[int]) -> list[Sample]:
    """Return several samples of a source."""
    several = getattr(source, "__getitems__", None)
    return list(several(indices)) if several else [source[index] for index in indices]
