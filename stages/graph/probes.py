"""Images that every export of an untrained network is tried with, and how far its outputs may lie from torch's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bonsai.profiles.schema import Precision
from bonsai.stages.backends.running import joined
from bonsai.stages.errors import BuildError
from bonsai.stages.store.tensor_files import in_rows, written_plainly

PROBES = "probes.safetensors"
"""File beside the ONNX file of an untrained network, with torch's outputs for the first images, (n, ...) float32."""
OUTPUTS = "outputs"
"""Name of these in that file."""
COUNT = 4
"""Number of images whose outputs are compared."""
APART = 1000
"""Images of one input are numbered from here on after those of the input before: two images of one sample must not be the same."""
EXACT, ROUNDING = 0.01, 1e-5
"""Largest mean difference of FP32 outputs, as a fraction of the difference between images and of the largest output."""
LOOSE: dict[Precision, float] = {"fp16": 0.3, "int8": 1.0}
"""The same for other precisions, over the standard deviation of all outputs. An untrained network multiplies the rounding of its first layers: MobileNetV2
was measured at 0.06 in FP16 and 0.5 in INT8. Outputs that have nothing to do with each other differ by 1.1."""


def probe_images(image_shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return images that differ in brightness, contrast, coarse and fine structure, always the same: (count, c, h, w) float32.

    Noise alone would do badly: a network that averages over an image gives nearly the same outputs for any noise.
    """
    return np.stack([_probe_image(image_shape, number) for number in range(count)])


def probe_inputs(shapes: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """Return such images for each input, flattened and joined if there are several, (count, total) float32.

    Args:
        shapes: Shapes of the inputs.
        count: Number of samples.
    """
    return joined([np.stack([_probe_image(shape, place * APART + number) for number in range(count)]) for place, shape in enumerate(shapes)])


def probes_of(graph: Path, image_shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return the same for an ONNX file, which has the inputs one by one.

    Args:
        graph: The file.
        image_shape: Shape of its input, or (total,) of several.
        count: Number of samples.
    """
    if len(image_shape) > 1:
        return probe_images(image_shape, count)
    import onnx  # what times an engine needs noise alone

    inputs = onnx.load(graph, load_external_data=False).graph.input
    return probe_inputs([tuple(side.dim_value for side in each.type.tensor_type.shape.dim[1:]) for each in inputs], count)


def noise_images(image_shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return the images that engines are timed with: noise, always the same, (count, c, h, w) float32."""
    return np.random.default_rng(0).standard_normal((count, *image_shape)).astype(np.float32)


def noise_for(image_shapes: Mapping[str, tuple[int, ...]], count: int) -> dict[str, np.ndarray]:
    """Return the images that each engine is timed with; engines of the same shape share them.

    Args:
        image_shapes: (channels, height, width) by engine.
        count: Images of a batch.
    """
    batches = {shape: noise_images(shape, count) for shape in set(image_shapes.values())}
    return {name: batches[shape] for name, shape in image_shapes.items()}


def _probe_image(image_shape: tuple[int, ...], number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    channels, *sides = image_shape
    blocks = rng.standard_normal((channels, *(4 for _ in sides)))
    for axis, side in enumerate(sides, 1):
        blocks = blocks.take(np.arange(side) * 4 // side, axis)
    image: np.ndarray = rng.normal(0, 0.5, (channels, *(1 for _ in sides))) + rng.uniform(0.3, 1.2) * (blocks + 0.5 * rng.standard_normal(image_shape))
    return image.astype(np.float32)


def save_outputs(folder: Path, outputs: np.ndarray) -> None:
    """Keep torch's outputs for the first probe images beside the file that was exported."""
    with written_plainly(folder / PROBES):
        save_file(in_rows({OUTPUTS: outputs.astype(np.float32)}), folder / PROBES)


def load_outputs(folder: Path) -> np.ndarray:
    """Read what `save_outputs` wrote."""
    return load_file(folder / PROBES)[OUTPUTS]


def compare_outputs(found: np.ndarray, expected: np.ndarray, precision: Precision, file: str) -> float:
    """Return the mean difference of two sets of outputs over their spread; NaN where numbers overflow, which proves nothing of a trained network.

    Args:
        found: Outputs of the file, (n, ...).
        expected: torch's: of the float network, or for INT8 of the network with quantisers.
        precision: Precision of the file.
        file: Its name, for the message.

    Raises:
        BuildError: The shapes differ, the outputs are the same for all images, or the difference is beyond what rounding explains.
    """
    if found.shape != expected.shape:
        raise BuildError(f"{file} gives outputs of shape {found.shape}, torch of {expected.shape}")
    if not np.isfinite(expected).all() or (precision != "fp32" and not np.isfinite(found).all()):
        return float("nan")
    between = float(expected.std(axis=0).mean())
    if between > ROUNDING * float(np.abs(expected).max()) and not np.ptp(found, axis=0).any():
        raise BuildError(f"{file} gives the same outputs for every image, the torch network does not")
    spread, share = (between, EXACT) if precision == "fp32" else (float(expected.std()), LOOSE[precision])
    difference = float(np.abs(found - expected).mean())
    if not difference <= share * spread + ROUNDING * float(np.abs(expected).max()):  # so that NaN is refused too
        raise BuildError(
            f"{file} does not compute what the torch network computes: outputs of the untrained network differ by {difference / max(spread, 1e-12):.1%} "
            f"of their spread (at most {share:.0%})"
        )
    return difference / max(spread, 1e-12)
