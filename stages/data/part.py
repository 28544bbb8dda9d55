"""A part of a dataset as networks and engines take it, batch by batch, however large it is."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch.utils.data import default_collate

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.feeding import Batch, feed, num_workers
from bonsai.stages.data.inputs import to_inputs, to_unit
from bonsai.stages.data.source import IndexedSamples, PreparedImages, open_part, samples_at

CHUNK = 64
"""Samples that are decoded at a time."""
MOST_BYTES = 256_000_000
"""Of inputs that are held in memory where some are enough."""


class Part:
    """Inputs and targets, in the order of the part.

    Samples that the store holds as pixels are inputs in memory once they are asked for; all others are made anew at every pass.

    Args:
        dataset: The prepared dataset.
        part: ``train``, ``validation`` or ``test``.
        device: Where batches are wanted: ``cpu`` or ``cuda``.
    """

    def __init__(self, dataset: Dataset, part: str, device: str = "cpu") -> None:
        self.source, self.device, self._name = open_part(dataset, part), device, part
        self._spec, self._contents = dataset.spec, dataset.contents

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.source)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield (inputs, targets): (n, c, h, w) or (n, c, t) float32 as the network takes them, and the targets as the task has them."""
        if isinstance(self.source, PreparedImages):
            inputs, targets = self._held
            yield from ((inputs[i : i + size], targets[i : i + size]) for i in range(0, len(inputs), size))
            return
        chunks = _Chunks(self.source, size)
        workers = num_workers(None, self.device, decodes=True)
        for samples, targets in feed(chunks, range(len(chunks)), workers=workers, device=self.device):
            yield to_inputs(samples, self._spec), targets

    def one_by_one(self) -> Iterator[np.ndarray]:
        """Yield each input as a batch of one, because in a larger batch its outputs may be rounded differently."""
        for inputs, _ in self.batches(CHUNK):
            array = inputs.cpu().numpy()
            yield from (array[place : place + 1] for place in range(len(array)))

    def first(self, count: int) -> np.ndarray:
        """Return the first inputs, (count, ...) float32, or all where there are fewer."""
        return self._inputs_at(range(min(count, len(self)))).cpu().numpy()

    def some(self) -> torch.Tensor:
        """Return all inputs, or as many as fit into `MOST_BYTES`, taken evenly from the whole part."""
        most = max(MOST_BYTES // (prod(self._spec.image_shape) * torch.float32.itemsize), 1)
        if len(self) <= most:
            return torch.cat([inputs for inputs, _ in self.batches(CHUNK)])
        return self._inputs_at(_evenly(len(self), most))

    @property
    def targets(self) -> "np.ndarray | MadeTargets":
        """The targets, (n, ...): an array, or what gives parts of it where they are made anew."""
        return self.source.targets.numpy() if self.source.targets is not None else MadeTargets(self.source)

    def some_targets(self, most: int | None = None) -> np.ndarray:
        """Return all targets, (n, ...), or some where they are made anew, taken evenly from the whole part.

        Args:
            most: Largest number of those that are made anew; None for as many as fit into `MOST_BYTES`.
        """
        targets = self.targets
        if isinstance(targets, np.ndarray):
            return targets
        most = most or max(MOST_BYTES // targets[:1].nbytes, 1)
        return np.concatenate([targets[number : number + 1] for number in _evenly(len(self), most)])

    @property
    def digest(self) -> str:
        """Sha256 that tells one part of the data, as the network sees it and in its order, from another."""
        if self._name in self._contents:
            return self._contents[self._name]
        return digest_of(*(tensor.cpu().numpy() for tensor in self._held))

    @cached_property
    def _held(self) -> Batch:
        assert isinstance(self.source, PreparedImages)
        samples = to_unit(self.source.images, self._spec.preprocess) if self._spec.preprocess else self.source.images
        return to_inputs(samples, self._spec).to(self.device), self.source.targets.to(self.device)

    def _inputs_at(self, numbers: "range | list[int]") -> torch.Tensor:
        return to_inputs(default_collate([sample for sample, _ in samples_at(self.source, list(numbers))]), self._spec)


def digest_of(inputs: np.ndarray, targets: np.ndarray) -> str:
    """Return the sha256 of inputs and targets in their order; packages keep it, so it stays."""
    digest = hashlib.sha256(repr((inputs.shape, f"torch.{inputs.dtype}")).encode())
    for array in (inputs, targets):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _evenly(count: int, most: int) -> list[int]:
    """Return the numbers of all, or of so many, taken evenly."""
    return list(range(count)) if count <= most else [round(number) for number in np.linspace(0, count - 1, most)]


class MadeTargets:
    """Targets that are made when they are asked for, such as masks."""

    def __init__(self, source: IndexedSamples) -> None:
        self._source = source

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._source)

    def __getitem__(self, numbers: slice) -> np.ndarray:
        """Return the targets of some samples, (n, ...)."""
        return np.stack([self._source.target(number).numpy() for number in range(*numbers.indices(len(self)))])


class _Chunks:
    """A source's samples, so many at a time."""

    def __init__(self, source: IndexedSamples, size: int) -> None:
        self._source, self._size = source, size

    def __len__(self) -> int:
        return -(-len(self._source) // self._size)

    def __getitem__(self, number: int) -> Batch:
        samples, targets = default_collate(samples_at(self._source, range(number * self._size, min((number + 1) * self._size, len(self._source)))))
        return samples, targets
