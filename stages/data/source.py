"""The seam between Bonsai and where samples come from: any map-style `torch.utils.data.Dataset` that says what its samples are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.files import Files
from bonsai.stages.data.inputs import to_unit
from bonsai.stages.data.loading import samples_of
from bonsai.stages.data.packed_paths import PackedPaths
from bonsai.stages.data.pixels import shrink
from bonsai.stages.data.registry import MapStyle
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.tasks.task import DataSpec

Sample = tuple[torch.Tensor, Any]
"""A sample (c, h, w) or (c, t), and its target, which torch's `default_collate` can stack. Where the source has a `Preprocess`, the sample is uint8, or
float32 scaled to [0, 1] from black to white; else it is the input itself."""


class Source(Protocol):
    """Samples by number. One that also has torch's ``__getitems__(indices)`` gives a whole batch at once.

    A sample must be the same whenever it is asked for, in whatever process: training changes images at random by itself. A source with an attribute
    `targets`, (n, ...), can be sampled by class (`training.balance`). One whose `decodes` is true takes long to make a sample: processes of their own do it.
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
        images: (n, ...), in the type that the dataset's `Preprocess` says.
        targets: (n, ...), as the task has them.
    """

    decodes = False

    def __init__(self, dataset: Dataset, part: str) -> None:
        tensors = load_file(part_file(dataset.folder, part))
        self.spec, self.images, self.targets = dataset.spec, tensors["images"], tensors["labels"]
        self._preprocess = dataset.preprocess

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Return an image with its target."""
        return to_unit(self.images[index], self._preprocess), self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return several images with their targets; torch's own `DataLoader` asks for them like this too."""
        chosen = torch.as_tensor(indices)
        return list(zip(to_unit(self.images[chosen], self._preprocess).unbind(), self.targets[chosen].unbind(), strict=True))


class IndexedSamples(torch.utils.data.Dataset[Sample]):
    """A part of a prepared dataset whose samples are made whenever they are asked for.

    Args:
        dataset: Has the index.
        part: ``train``, ``validation`` or ``test``.

    Attributes:
        targets: (n, ...), as the task has them; None for masks, which are read with their images.

    Raises:
        ConfigError: The files are not where the recipe says.
    """

    decodes = True

    def __init__(self, dataset: Dataset, part: str) -> None:
        assert dataset.origin is not None
        arrays = load_arrays(part_file(dataset.folder, part))
        labels = arrays.get("labels")
        self.spec, self._preprocess, self._name = dataset.spec, dataset.preprocess, dataset.name
        self.targets = None if labels is None else torch.from_numpy(labels)
        self._samples: MapStyle
        if "paths" in arrays:
            targets = labels if labels is not None else PackedPaths(arrays["mask_paths"], arrays["mask_ends"])
            root = dataset.origin.root
            self._samples = Files(root, PackedPaths(arrays["paths"], arrays["ends"]), dataset.preprocess.whole, targets, sizes=arrays["sizes"])
            self._numbers = np.arange(len(arrays["ends"]))
        else:
            self._samples, self._numbers = samples_of(dataset.origin.model_dump_json()).samples, arrays["numbers"]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample with its target.

        Raises:
            ConfigError: It cannot be made, or its file is not what it was.
        """
        number = int(self._numbers[index])
        with self._telling(number):
            made, target = self._samples[number]
            array = shrink(made, self._preprocess)
        kept = self.targets[index] if self.targets is not None else torch.from_numpy(np.array(target))
        return to_unit(torch.from_numpy(np.ascontiguousarray(array)), self._preprocess), kept

    def target(self, index: int) -> torch.Tensor:
        """Return a target alone, of masks too."""
        if self.targets is not None:
            return self.targets[index]
        number = int(self._numbers[index])
        with self._telling(number):
            found = self._samples.target(number) if isinstance(self._samples, Files) else self._samples[number][1]
        return torch.from_numpy(np.array(found))

    @contextmanager
    def _telling(self, number: int) -> Iterator[None]:
        what = str(self._samples.root / self._samples.paths[number]) if isinstance(self._samples, Files) else f"sample {number}"
        problem = f"dataset {self._name!r}: a sample cannot be made any more"
        with user_code(problem, given=what, allowed="the samples as they were when the run began", fix="mend the files or the dataset, and run again"):
            yield


def open_part(dataset: Dataset, part: str) -> PreparedImages | IndexedSamples:
    """Return a part of a prepared dataset: ``train``, ``validation`` or ``test``.

    Raises:
        ConfigError: Its samples are made from files that are not where the recipe says.
    """
    return (PreparedImages if dataset.stored == "pixels" else IndexedSamples)(dataset, part)


def samples_at(source: Source, indices: Sequence[int]) -> list[Sample]:
    """Return several samples of a source."""
    several = getattr(source, "__getitems__", None)
    return list(several(indices)) if several else [source[index] for index in indices]


def part_file(folder: Path, part: str) -> Path:
    """Return the file of a part of a prepared dataset."""
    return folder / f"{part}.safetensors"
