"""Makes every sample of a large set once, before training: a broken one would else end the run hours later.

The stage `prepare` does so. Its key has the digest of the contents, so the same contents are not checked again.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.feeding import num_workers
from bonsai.stages.data.files import SECONDS, SHOWN, UNREADABLE, Files
from bonsai.stages.data.registry import LoadedSamples
from bonsai.stages.data.storing import make_sample
from bonsai.stages.imports.contents import listed_few
from bonsai.stages.training.progress import report

CHUNK = 32
"""Samples that a process makes at a time."""
Fits = Callable[[np.ndarray], object]
"""Raises `ConfigError` for targets (n, ...) that the task does not have."""


def check_samples(loaded: LoadedSamples, fits: Fits) -> None:
    """Make every sample, in several processes, and check those targets that are made with it, such as masks.

    Args:
        loaded: The samples.
        fits: The task's check of targets.

    Raises:
        ConfigError: Some cannot be made, or have other targets than the task's; the first ones are named.
    """
    chunks = _Refused(loaded, fits)
    refused, shown, workers = list[int](), time.monotonic(), num_workers(None, "cpu", decodes=True)
    loader = DataLoader(chunks, batch_size=None, num_workers=workers, multiprocessing_context="fork", generator=torch.Generator())  # as in `feed`
    for done, numbers in enumerate(loader):
        refused += numbers
        if time.monotonic() - shown > SECONDS:
            shown = time.monotonic()
            report("checking samples", done=done * CHUNK, total=len(loaded.samples), unit="sample")
    if refused:
        try:
            chunks.require(refused[0])
        except ConfigError as error:
            few = listed_few([chunks.name(number) for number in refused[:SHOWN]])
            more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
            raise ConfigError(f"{len(refused)} of {len(loaded.samples)} samples cannot be used: {few}{more}. The first: {error}") from error
        raise ConfigError(
            describe(
                "a sample could not be made at first, and could when it was tried again",
                given=chunks.name(refused[0]),
                allowed="samples that are the same whenever they are asked for",
                fix="see whether files change while they are read, and run again",
            )
        )


class _Refused(Dataset[list[int]]):
    """The numbers of the samples that cannot be used, in chunks of the set."""

    def __init__(self, loaded: LoadedSamples, fits: Fits) -> None:
        self._samples, self._fits = loaded.samples, fits if loaded.targets is None else None

    def __len__(self) -> int:
        return -(-len(self._samples) // CHUNK)

    def __getitem__(self, chunk: int) -> list[int]:
        return [number for number in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self._samples))) if self._refuses(number)]

    def name(self, number: int) -> str:
        """Return what people call a sample."""
        return self._samples.paths[number] if isinstance(self._samples, Files) else f"sample {number}"

    def require(self, number: int) -> None:
        """Make a sample.

        Raises:
            ConfigError: It cannot be made, or its target is none of the task's.
        """
        try:
            _, target = make_sample(self._samples, number)
        except UNREADABLE as error:
            given = f"{self.name(number)} ({error})"
            raise ConfigError(describe("a sample cannot be read", given=given, allowed="whole files that fit", fix="mend or remove it")) from error
        if self._fits is not None:
            self._fits(np.asarray(target)[None])

    def _refuses(self, number: int) -> bool:
        try:
            self.require(number)
        except ConfigError:
            return True
        return False
