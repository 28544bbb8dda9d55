"""Whole batches from a `DataLoader`, made ahead by processes of their own where that pays."""

import os
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from bonsai.profiles.errors import BonsaiError

Batch = tuple[torch.Tensor, torch.Tensor]
MOST_WORKERS = 4
"""Where their number is left open."""


class BatchSet(Protocol):
    """Batches by number, each made when it is asked for."""

    def __getitem__(self, number: int, /) -> Batch:
        """Return the samples of a batch and their targets."""
        ...


class _Carrying(Dataset[Batch | BonsaiError]):
    """Batches by number; an error for the user is carried out of the process that it was raised in as it is."""

    def __init__(self, batches: BatchSet) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> Batch | BonsaiError:
        try:
            return self._batches[number]
        except BonsaiError as error:
            return error


def feed(batches: BatchSet, numbers: Iterable[int], *, workers: int, device: str) -> Iterator[Batch]:
    """Yield batches in the order of their numbers, on a device.

    Args:
        batches: Makes each.
        numbers: Which, perhaps without an end.
        workers: Processes that make batches ahead, two each; with none they are made when they are asked for.
        device: ``cpu`` or ``cuda``.

    Raises:
        BonsaiError: A batch could not be made.
    """
    loader = DataLoader(
        _Carrying(batches),
        sampler=numbers,
        batch_size=None,  # what it loads are batches already
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # the samples in memory are shared, and no user's script runs again
        pin_memory=device == "cuda",
        generator=torch.Generator(),  # else it draws its workers' seeds from the network's random numbers
    )
    for found in loader:
        if isinstance(found, BonsaiError):
            raise found
        samples, targets = found
        yield samples.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def num_workers(asked: int | None, device: str, *, decodes: bool) -> int:
    """Return how many processes make batches ahead.

    On a CPU they take the cores of the training, so there are none for samples that lie in memory. Samples that are decoded take longer than a step.

    Args:
        asked: Number in the recipe; None leaves it open.
        device: ``cpu`` or ``cuda``.
        decodes: Whether a sample takes long to make.
    """
    if asked is not None:
        return asked
    return 0 if device == "cpu" and not decodes else min(MOST_WORKERS, os.cpu_count() or 1)
