"""Batches as a pure function of the step: any part of a training can be repeated or continued exactly, whatever the number of workers.

`Steps` maps the number of an optimizer step to its batch, so that a `DataLoader` needs to know nothing but the step to begin with: its sampler
counts, and each of its workers makes whole batches.
"""

import itertools
import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, default_collate

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.inputs import to_inputs
from bonsai.stages.data.source import PreparedImages, Source, samples_at
from bonsai.stages.training.augmentation import make_augmentation, move_both, move_image, seeded
from bonsai.stages.training.config import TrainConfig

Batch = tuple[torch.Tensor, torch.Tensor]
MOST_WORKERS = 4
"""Of a training on a GPU that leaves their number open."""


def load_split(dataset: Dataset, split: str) -> Batch:
    """Return (images, targets) of ``train``, ``validation`` or ``test``: (n, c, h, w) float32 as the network takes them, (n, ...)."""
    part = PreparedImages(dataset, split)
    return to_inputs(part.images, part.spec), part.targets


class Steps(torch.utils.data.Dataset[Batch]):
    """The batches of a training by optimizer step: samples in an order that is drawn anew every epoch, each changed at random.

    Args:
        source: The source of the samples.
        config: Batch size, seed and augmentation.
        moves_targets: Whether targets are masks, which move with their images.
    """

    def __init__(self, source: Source, config: TrainConfig, *, moves_targets: bool = False) -> None:
        self._source, self._config, self._augmentation = source, config, make_augmentation(config.augment)
        self._moves_targets = moves_targets
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))
        self.per_epoch = max(len(source) // config.batch_size, 1)

    def __getitem__(self, step: int) -> Batch:
        """Return (images, targets) as the source has them; the last partial batch of an epoch is dropped."""
        epoch, index = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self._source), generator=torch.Generator().manual_seed(_seed(self._config.seed, epoch, 0)))
        chosen = self._order[1][index * self._config.batch_size : (index + 1) * self._config.batch_size]
        samples = samples_at(self._source, chosen.tolist())
        if self._augmentation is not None:
            with seeded(_seed(self._config.seed, step, 1)):
                change = move_both if self._moves_targets else move_image
                samples = [change(self._augmentation, image, target) for image, target in samples]
        images, targets = default_collate(samples)
        return images, targets


class Batches:
    """The samples of a source, shuffled anew every epoch and augmented, on the device of the training.

    Args:
        source: Where the samples come from.
        config: Batch size, seed, augmentation, device, and how many processes load.
        moves_targets: Whether targets are masks, which move with their images.
    """

    def __init__(self, source: Source, config: TrainConfig, *, moves_targets: bool = False) -> None:
        self._steps, self._spec, self._config = Steps(source, config, moves_targets=moves_targets), source.spec, config
        self._coming: Iterator[Batch] = iter(())
        self._next = -1
        self.per_epoch = self._steps.per_epoch

    def batch(self, step: int) -> Batch:
        """Return the (images, targets) of one optimizer step; steps in their order are loaded ahead where there are workers."""
        if step != self._next:
            self._coming = iter(_loader(self._steps, self._config, step))
        images, targets = (tensor.to(self._config.device, non_blocking=True) for tensor in next(self._coming))
        self._next = step + 1
        images = to_inputs(images, self._spec)
        layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
        return images.contiguous(memory_format=layout), targets


def _loader(steps: Steps, config: TrainConfig, start: int) -> DataLoader[Batch]:
    """Return a loader of all batches from a step on."""
    workers = _num_workers(config)
    return DataLoader(
        steps,
        sampler=itertools.count(start),
        batch_size=None,  # what it loads are batches already
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # the samples in memory are shared, and no user's script runs again
        pin_memory=config.device == "cuda",
        generator=torch.Generator(),  # else it draws its workers' seeds from the network's random numbers
    )


def _num_workers(config: TrainConfig) -> int:
    if config.workers is not None:
        return config.workers
    return 0 if config.device == "cpu" else min(MOST_WORKERS, os.cpu_count() or 1)  # on a CPU they would take the cores of the training


def _seed(seed: int, counter: int, stream: int) -> int:
    return (seed * 2 + stream) * 1_000_003 + counter
