"""Running an engine: any number of images, even where its batch is fixed."""

from collections.abc import Callable, Sequence

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
"""Runs an engine: images (n, c, h, w) float32 to outputs (n, ...) float32."""


def joined(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the outputs of an engine, (n, ...) each, as one array: a single one as it is, several flattened and joined, (n, total)."""
    return outputs[0] if len(outputs) == 1 else np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


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
