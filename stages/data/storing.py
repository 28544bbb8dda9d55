"""What the store keeps of a dataset: its samples where they are small, else where they are found."""

import hashlib
import time
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from bonsai.stages.data.files import SECONDS, UNREADABLE, Files, require_readable
from bonsai.stages.data.packed_paths import PackedPaths
from bonsai.stages.data.pixels import array_type
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import LoadedImages, LoadedSamples, MapStyle
from bonsai.stages.imports.contents import digest_of
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.training.progress import report

MOST_BYTES = 256_000_000
"""Largest set that is kept as pixels, and so trained on from memory."""


@dataclass(frozen=True)
class Pixels:
    """All samples of a dataset in memory.

    Attributes:
        images: (n, c, h, w) or (n, c, t), in the type that `preprocess` says.
        targets: (n, ...).
        classes: Names.
        licence: Licence of the data.
        preprocess: How samples become inputs.
        parts: (n,) as of `LoadedImages`.
    """

    images: torch.Tensor
    targets: np.ndarray
    classes: tuple[str, ...]
    licence: str
    preprocess: Preprocess
    parts: np.ndarray | None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images)

    def tensors(self, numbers: np.ndarray, targets: np.ndarray | None) -> dict[str, torch.Tensor]:
        """Return what is stored of a part.

        Args:
            numbers: Its samples.
            targets: Those of all samples, in the type of the task.
        """
        assert targets is not None, "samples in memory have their targets there too"
        return {"images": self.images[numbers].contiguous(), "labels": torch.from_numpy(targets)[numbers].contiguous()}


@dataclass(frozen=True)
class Index:
    """Samples that are made again whenever they are needed."""

    loaded: LoadedSamples

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.loaded.samples)

    @property
    def targets(self) -> np.ndarray | None:
        """The targets of all samples, (n, ...), or None for masks."""
        return self.loaded.targets

    def tensors(self, numbers: np.ndarray, targets: np.ndarray | None) -> dict[str, torch.Tensor]:
        """As of `Pixels`; `targets` are None for masks, which are not stored."""
        stored = {} if targets is None else {"labels": targets[numbers]}
        samples = self.loaded.samples
        if isinstance(samples, Files):
            part = samples.chosen(numbers)
            stored |= {"paths": part.paths.text, "ends": part.paths.ends, "sizes": part.sizes}
            if isinstance(part.targets, PackedPaths):
                stored |= {"mask_paths": part.targets.text, "mask_ends": part.targets.ends}
        else:
            stored["numbers"] = numbers
        return {name: torch.from_numpy(np.ascontiguousarray(array).copy()) for name, array in stored.items()}

    def digest(self, numbers: np.ndarray, targets: np.ndarray | None, origin: str) -> str:
        """Return the sha256 of what a part holds: of its files, or of all that the loader reads.

        Args:
            numbers: Its samples.
            targets: As for `tensors`.
            origin: JSON of the dataset's `Origin`.
        """
        samples = self.loaded.samples
        files = digest_of(samples.chosen(numbers).every_file(), "data") if isinstance(samples, Files) else origin
        digest = hashlib.sha256(repr((files, self.loaded.preprocess.model_dump_json(), numbers.tolist() if files == origin else len(numbers))).encode())
        if targets is not None:
            digest.update(targets[numbers].tobytes())
        return digest.hexdigest()


def hold(loaded: LoadedImages | LoadedSamples) -> Pixels | Index:
    """Return all samples in memory where they are there already or are small, else as what makes them.

    Raises:
        ConfigError: A sample cannot be read.
    """
    if isinstance(loaded, LoadedImages):
        parts = None if loaded.parts is None else loaded.parts.numpy()
        preprocess = Preprocess.of(tuple(loaded.images.shape[1:]))
        return Pixels(loaded.images, loaded.labels.numpy(), loaded.classes, loaded.licence, preprocess, parts)
    each = prod(loaded.preprocess.image_shape) * array_type(loaded.preprocess).itemsize
    if len(loaded.samples) * each <= MOST_BYTES:
        return _read_all(loaded)
    if isinstance(loaded.samples, Files):
        require_readable(loaded.samples.broken, len(loaded.samples))
    return Index(loaded)


def _read_all(loaded: LoadedSamples) -> Pixels:
    samples, count = loaded.samples, len(loaded.samples)
    arrays = np.empty((count, *loaded.preprocess.image_shape), array_type(loaded.preprocess))
    targets, shown = list[np.ndarray](), time.monotonic()
    broken = list(samples.broken) if isinstance(samples, Files) else []
    for number in range(count):
        if time.monotonic() - shown > SECONDS:
            shown = time.monotonic()
            report("reading samples", done=number, total=count, unit="sample")
        try:
            arrays[number], target = make_sample(samples, number)
            targets.append(target)
        except UNREADABLE as error:
            if not isinstance(samples, Files):
                raise
            place = f"{samples.root / samples.paths[number]} ("
            if not any(line.startswith(place) for line in samples.broken):
                broken.append(f"{place}{error})")
    require_readable(broken, count)
    known = np.stack(targets) if loaded.targets is None else loaded.targets
    return Pixels(torch.from_numpy(arrays), known, loaded.classes, loaded.licence, loaded.preprocess, loaded.parts)


def make_sample(samples: MapStyle, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample and its target, and check a mask against its image. Errors of files are raised as they are.

    Raises:
        ConfigError: The user's dataset raises something.
    """
    if isinstance(samples, Files):
        return samples.checked(number)
    with user_code(f"sample {number} of the dataset cannot be made", allowed="samples that are all alike", fix="mend the dataset, or leave this sample out"):
        array, target = samples[number]
    return array, target
