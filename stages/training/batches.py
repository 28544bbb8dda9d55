"""Batches as a pure function of the step: any part of a training can be repeated or continued exactly, whatever the number of workers.

`Steps` maps the number of an optimizer step to its batch, so that a `DataLoader` needs to know nothing but the step to begin with: its sampler
counts, and each of its workers makes whole batches.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import default_collate

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.feeding import Batch, feed, num_workers
from bonsai.stages.data.inputs import to_inputs
from bonsai.stages.data.part import Part
from bonsai.stages.data.source import Source, open_part, samples_at
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import Task
from bonsai.stages.training.augmentation import Augmentation, make_augmentation, require_augmentation, seeded
from bonsai.stages.training.config import AugmentConfig, TrainConfig


def load_split(dataset: Dataset, split: str) -> Batch:
    """Return all (inputs, targets) of ``train``, ``validation`` or ``test``, in memory: as the network takes them, and as the task has them."""
    inputs, targets = zip(*Part(dataset, split).batches(1024), strict=True)
    return torch.cat(inputs), torch.cat(targets)


class Steps:
    """The batches of a training by optimizer step: samples in an order that is drawn anew every epoch, each changed at random.

    Args:
        source: The source of the samples.
        config: Batch size, seed, augmentation and balance.
        task: Says which targets are masks, and of which class a sample is.

    Raises:
        ConfigError: The samples cannot be changed, or their classes cannot be balanced, as the config asks.
    """

    def __init__(self, source: Source, config: TrainConfig, task: Task = CLASSIFICATION) -> None:
        self._source, self._config, self._augmentation = source, config, augmentation_of(source, config, task)
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))
        self._chances = class_chances(source, task) if config.balance == "sampling" else None
        self.per_epoch = max(len(source) // config.batch_size, 1)

    def __getitem__(self, step: int) -> Batch:
        """Return (samples, targets) as the source has them; the last partial batch of an epoch is dropped."""
        epoch, index = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, self._draw_order(torch.Generator().manual_seed(_seed(self._config.seed, epoch, 0)))
        chosen = self._order[1][index * self._config.batch_size : (index + 1) * self._config.batch_size]
        samples = samples_at(self._source, chosen.tolist())
        if self._augmentation is None:
            images, targets = default_collate(samples)
            return images, targets
        with seeded(_seed(self._config.seed, step, 1)):
            images, targets = default_collate([self._augmentation.of_sample(image, target) for image, target in samples])
            return self._augmentation.of_batch(images, targets)

    def _draw_order(self, generator: torch.Generator) -> torch.Tensor:
        """Return the numbers of an epoch's samples in their order."""
        if self._chances is None:
            return torch.randperm(len(self._source), generator=generator)
        ends = self._chances.cumsum(0)
        drawn = torch.searchsorted(ends, torch.rand(len(self._source), dtype=torch.float64, generator=generator) * ends[-1], right=True)
        return drawn.clamp(max=len(ends) - 1)


def require_batches(dataset: Dataset, config: TrainConfig) -> None:
    """Check before any training that batches can be made as a recipe asks.

    Raises:
        ConfigError: The training images cannot be changed, or their classes cannot be balanced, in this way.
    """
    if config.balance == "sampling":
        class_chances(open_part(dataset, "train"), task_named(dataset.task))
    if isinstance(config.augment, tuple) or len(dataset.image_shape) != 3:
        require_augmentation(config.augment, dataset.spec, dataset.task)


def augmentation_of(source: Source, config: TrainConfig, task: Task) -> Augmentation | None:
    """Return what changes the samples of a source at random; None where nothing is asked for.

    Raises:
        ConfigError: As for `make_augmentation`.
    """
    if config.augment in (AugmentConfig(), ()):
        return None
    return make_augmentation(config.augment, source.spec, masks=task.moves_with_image)


def class_chances(source: Source, task: Task) -> torch.Tensor:
    """Return how probable each sample is, (n,) float64, where every class is as probable as any other.

    Raises:
        ConfigError: The samples have no classes to balance.
    """
    targets = getattr(source, "targets", None)
    labels = None if targets is None else task.strata(np.asarray(targets))
    if labels is None or labels.max() >= source.spec.num_classes:  # labels beyond them only stratify a split
        allowed = "sampling for samples of one class each, else none"
        raise ConfigError(describe("training.balance: there are no classes to balance", given="sampling", allowed=allowed, fix="set it to none"))
    counts = np.bincount(labels)
    return torch.from_numpy(1 / counts[labels])


class Batches:
    """The samples of a source, shuffled anew every epoch and augmented, on the device of the training.

    Args:
        source: Where the samples come from.
        config: Batch size, seed, augmentation, device, and how many processes load.
        moves_targets: Whether targets are masks, which move with their images.
    """

    def __init__(self, source: Source, config: TrainConfig, task: Task = CLASSIFICATION) -> None:
        self._steps, self._spec, self._device = Steps(source, config, task), source.spec, config.device
        self._workers = num_workers(config.workers, config.device, decodes=getattr(source, "decodes", False))
        self._coming: Iterator[Batch] = iter(())
        self._next = -1
        self.per_epoch = self._steps.per_epoch

    def batch(self, step: int) -> Batch:
        """Return the (inputs, targets) of one optimizer step; steps in their order are loaded ahead where there are workers.

        Raises:
            ConfigError: A sample cannot be made.
        """
        if step != self._next:
            self._coming = feed(self._steps, itertools.count(step), workers=self._workers, device=self._device)
        samples, targets = next(self._coming)
        self._next = step + 1
        layout = torch.channels_last if samples.ndim == 4 else torch.contiguous_format
        laid_out = samples.contiguous(memory_format=layout)  # as bytes they are moved four times as fast
        return to_inputs(laid_out, self._spec).contiguous(memory_format=layout), targets


def _seed(seed: int, counter: int, stream: int) -> int:
    return (seed * 2 + stream) * 1_000_003 + counter
