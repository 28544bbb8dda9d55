"""Images that every export of an untrained network is tried with, and how far its logits may lie from torch's."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from profiles.schema import Precision
from stages.errors import BuildError

PROBES = "probes.safetensors"
"""Beside the ONNX file of an untrained network: torch's logits of the first images, (n, classes) float32."""

COUNT = 4
"""Images whose logits are compared."""
ALLOWED: dict[Precision, tuple[float, float]] = {"fp32": (0.01, 1e-5), "fp16": (0.2, 5e-3), "int8": (0.5, 0.05)}
"""What the logits' mean difference may be: a share of what they differ between images, and one of the largest, for rounding. Far above what was measured:
a file that computes something else differs by 1 and more."""


def probe_images(image_shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Return images that differ in brightness, contrast, coarse and fine structure, always the same: (count, c, h, w) float32.

    Noise alone would do badly: a network that averages over an image gives nearly the same logits for any noise.
    """
    rng = np.random.default_rng(0)
    channels, height, width = image_shape
    coarse = rng.standard_normal((count, channels, 4, 4))
    blocks = coarse[:, :, np.arange(height) * 4 // height][..., np.arange(width) * 4 // width]
    offset, scale = rng.normal(0, 0.5, (count, channels, 1, 1)), rng.uniform(0.3, 1.2, (count, 1, 1, 1))
    return (offset + scale * (blocks + 0.5 * rng.standard_normal((count, *image_shape)))).astype(np.float32)


def save_logits(folder: Path, logits: np.ndarray) -> None:
    """Keep torch's logits of the first probe images beside the file that was exported."""
    save_file({"logits": np.ascontiguousarray(logits, dtype=np.float32)}, folder / PROBES)


def load_logits(folder: Path) -> np.ndarray:
    """Read what `save_logits` wrote."""
    return load_file(folder / PROBES)["logits"]


def compare_logits(found: np.ndarray, expected: np.ndarray, precision: Precision, file: str) -> float:
    """Return the mean difference of two sets of logits, over how much torch's differ between images; NaN where numbers are missing on either side.

    Args:
        found: Of the file, (n, classes).
        expected: torch's: of the float network, or for INT8 of the network with quantisers.
        precision: What the file computes in.
        file: Its name, for the message.

    Raises:
        BuildError: The shapes differ, or the difference is beyond what rounding explains.
    """
    if found.shape != expected.shape:
        raise BuildError(f"{file} gives logits of shape {found.shape}, torch of {expected.shape}")
    if not np.isfinite(expected).all() or (precision != "fp32" and not np.isfinite(found).all()):
        return float("nan")  # FP16 overflows where nothing is trained and normalised yet; the export of the trained network decides
    difference, spread = float(np.abs(found - expected).mean()), float(expected.std(axis=0).mean())
    share, rounding = ALLOWED[precision]
    if not difference <= share * spread + rounding * float(np.abs(expected).max()):  # so that NaN is refused too
        raise BuildError(
            f"{file} does not compute what the torch network computes: logits of the untrained network differ by {difference / max(spread, 1e-12):.1%} "
            f"of what they differ between images (at most {share:.0%})"
        )
    return difference / max(spread, 1e-12)
