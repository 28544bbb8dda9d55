"""Golden results: images and the logits that the engine must give for them, wherever it runs."""

from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.backends.running import Run

GOLDEN = "golden.safetensors"
IMAGES, LOGITS = "input", "logits"
GOLDEN_IMAGES = 3
TOLERANCE = 0.02
"""Largest difference of a golden logit, relative to the largest one: kernels of other CPUs round otherwise."""
GoldenSource = Literal["engine", "onnxruntime on model.onnx"]
"""What gave the golden logits: the engine itself, or, where it cannot be run, the graph that it was built from."""


def write_golden(folder: Path, images: np.ndarray, run: Run) -> None:
    """Run images one by one and keep them with their logits.

    Args:
        folder: The package.
        images: (n, c, h, w) float32.
        run: The engine, or what stands for it.
    """
    logits = np.concatenate([run(image[None]) for image in images])
    save_file({IMAGES: images, LOGITS: logits}, folder / GOLDEN)


def read_golden(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, c, h, w) float32 and their logits (n, classes) float32."""
    golden = load_file(folder / GOLDEN)
    return golden[IMAGES], golden[LOGITS]


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of two equal shapes of logits over the largest one expected; NaN where one of them is."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
