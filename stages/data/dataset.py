"""A dataset as the store keeps it."""

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from bonsai.stages.data.origin import Origin
from bonsai.stages.data.preprocess import Preprocess, Shape
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.registry import DEFAULT
from bonsai.stages.tasks.task import DataSpec

Stored = Literal["pixels", "index"]
LATER = ("task_code", "stored", "origin", "contents")
"""Attributes that a record does not show where they have their defaults: the digest of a dataset from before they were there stays."""


class Dataset(Artifact):
    """Samples and targets, split once and for all.

    Files: ``{train,validation,test}.safetensors`` with `labels` (n, ...) and, by `stored`:

    - ``pixels``: `images` (n, ...) in the type that `preprocess` says;
    - ``index``, for samples in files: `paths` and `ends`, the paths from the root as a `PackedPaths`, `sizes` of the files in bytes, and `mask_paths` and
      `mask_ends` instead of `labels` where the targets are masks;
    - ``index``, for samples that a loader makes: `numbers` (n,), and no `labels` where the targets are masks.

    Attributes:
        preprocess: How the samples become the network's input. The exported network takes the same input.
        task: The task that the targets are for; it has the loss and the metric.
        task_code: Digest of a task of the user's own; empty for one of Bonsai's.
        stored: Whether the samples lie here, or are made anew from their files whenever they are needed.
        origin: What they are made from; None for ``pixels``.
        contents: Digest of the contents of each part, of an ``index``.
    """

    name: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    sizes: dict[str, int]
    licence: str
    task: str = DEFAULT
    task_code: str = ""
    stored: Stored = "pixels"
    origin: Origin | None = None
    contents: dict[str, str] = {}

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        facts: dict[str, Any] = handler(self)
        facts["preprocess"] = self.preprocess.model_dump(exclude_defaults=True)
        return {name: value for name, value in facts.items() if name not in LATER or getattr(self, name) != type(self).model_fields[name].default}

    @property
    def image_shape(self) -> Shape:
        """(channels, height, width) or (channels, length)."""
        return self.preprocess.image_shape

    @property
    def spec(self) -> DataSpec:
        """What networks, tasks and sources must know of the data."""
        return DataSpec(self.image_shape, len(self.classes), self.preprocess)
