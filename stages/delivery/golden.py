"""Golden results: images and the outputs that the engine must give for them, wherever it runs."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bonsai.profiles.errors import describe
from bonsai.stages.errors import BuildError, VerificationError
from bonsai.stages.store.tensor_files import in_rows, written_plainly
from bonsai.stages.tasks.task import Difference

GOLDEN = "golden.safetensors"
IMAGES = "input"
"""Name of the images in that file; the other tensor has the name of the network's output."""
GOLDEN_IMAGES = 3
TOLERANCE = 0.02
"""Largest allowed difference of golden outputs, relative to the largest output. Kernels of other CPUs, and for other batches, round differently."""
REPEATED = 1e-3
"""The same if the same engine runs the same images again on the same machine."""
RANDOM = "take what draws random numbers out of the network's evaluation: dropout or noise that does not ask `self.training`"
BATCHED = "take what computes over the batch out of the network's evaluation: statistics or a reshape that mix images"
Run = Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]
"""Runs an engine: batches of images, (n, c, h, w) float32 each, to the outputs of each batch."""
GoldenSource = Literal["engine", "onnxruntime on model.onnx"]
"""Origin of the golden outputs: the engine itself, or, if it cannot run, the graph that it was built from."""


def write_golden(folder: Path, images: np.ndarray, run: Run, output: str) -> np.ndarray:
    """Run images one by one, keep them with their outputs (n, ...) float32, and return these.

    They are run again, alone and all at once: an engine that draws random numbers, or computes on the whole batch, has no golden outputs.

    Args:
        folder: The package.
        images: (n, c, h, w) float32.
        run: The engine, or what stands for it.
        output: Name of the network's output; of several, which are joined, all names.

    Raises:
        BuildError: The engine gives other outputs the second time, or in a batch.
    """
    alone = [image[None] for image in images]
    *singly, together = run([*alone, *alone, images])
    outputs, again = np.concatenate(singly[: len(alone)]), np.concatenate(singly[len(alone) :])
    _require_same(again, outputs, REPEATED, "run again on the same images", RANDOM)
    _require_same(together, outputs, TOLERANCE, f"run on {len(images)} images at once instead of alone", BATCHED)
    with written_plainly(folder / GOLDEN):
        save_file(in_rows({IMAGES: images, output: outputs}), folder / GOLDEN)
    return outputs


def _require_same(found: np.ndarray, expected: np.ndarray, limit: float, when: str, fix: str) -> None:
    difference = Difference.between(found, expected, agreement=math.nan).relative if found.shape == expected.shape else float("nan")
    if not difference <= limit:  # so that NaN is refused too
        given = (
            f"a difference of {difference:.2%} of the largest output" if np.isfinite(difference) else f"outputs {found.shape}, or outputs that are no numbers"
        )
        raise BuildError(describe(f"the engine gives other outputs when it is {when}", given=given, allowed=f"at most {limit:.1%}", fix=fix))


def read_golden(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, c, h, w) float32 and their outputs (n, ...) float32.

    Raises:
        VerificationError: The file is no safetensors, or holds something else.
    """
    allowed, fix = f"{IMAGES} (n, c, h, w) and the outputs (n, ...), float32, of at least one image", "let Bonsai write the package again"
    try:
        golden = load_file(folder / GOLDEN)
    except (SafetensorError, OSError, ValueError) as error:
        raise VerificationError(describe(f"{GOLDEN}: cannot be read", given=error, allowed=f"safetensors with {allowed}", fix=fix)) from error
    images, others = golden.get(IMAGES), [array for name, array in golden.items() if name != IMAGES]
    outputs = others[0] if len(others) == 1 else None
    whole = images is not None and outputs is not None and images.dtype == outputs.dtype == np.float32
    if images is None or outputs is None or not whole or outputs.ndim < 2 or len(images) != len(outputs) or not outputs.size or not images.size:
        given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in golden.items()) or "nothing"
        raise VerificationError(describe(f"{GOLDEN}: no golden results", given=given, allowed=allowed, fix=fix))
    return images, outputs
