"""Running an engine: any number of images, even where its batch is fixed."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
"""Runs an engine: images (n, c, h, w) float32 to outputs (n, ...) float32. An engine of several inputs takes them flattened and joined, (n, total)."""


def joined(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the outputs of an engine, (n, ...) each, as one array: a single one as it is, several flattened and joined, (n, total)."""
    return outputs[0] if len(outputs) == 1 else np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


def parts_of(inputs: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Return the inputs of an engine, (n, ...) each, out of an array or a tensor: of several that are flattened and joined there, (n, total).

    Args:
        inputs: A single input as it is.
        shapes: Shapes without the batch.
    """
    if len(shapes) == 1:
        return [inputs]
    ends = list(accumulate(map(math.prod, shapes)))
    parts = [inputs[:, end - math.prod(shape) : end] for end, shape in zip(ends, shapes, strict=True)]
    return [part if len(shape) == 1 else part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def feeder(inputs: Mapping[str, tuple[int, ...]]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return what maps the inputs of an engine, joined if there are several, to arrays by name.

    Args:
        inputs: Shapes without the batch, by name, in the order of the file.
    """
    names, shapes = tuple(inputs), tuple(inputs.values())
    if len(names) == 1:
        return lambda images: {names[0]: images}
    return lambda images: dict(zip(names, parts_of(images, shapes), strict=True))


def in_batches(run: Run, batch: int) -> Run:
    """Return a run that takes any number of images: in parts of `batch`, the last filled up with its last image.

    Args:
        run: Takes exactly `batch` images.
        batch: Images per inference.
    """

    def run_all(images: np.ndarray) -> np.ndarray:
        missing = -len(images) % batch
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        parts = [run(filled[first : first + batch]) for first in range(0, len(filled), batch)]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[: len(images)]

    return run_all
