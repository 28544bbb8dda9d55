"""Samples in one array: images (n, c, h, w) or series (n, c, t), in an ``.npz`` file or in the ``.npy`` files of a folder.

data.npz with `inputs`, `targets` and, where the set comes split, `parts`
folder/inputs.npy, folder/targets.npy, folder/parts.npy: read from the disk sample by sample, so that they may be larger than the memory
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.how import make_preprocess
from bonsai.stages.data.pixels import as_sample
from bonsai.stages.data.preprocess import Preprocess, scale_of
from bonsai.stages.data.registry import LoadedSamples

INPUTS, TARGETS, PARTS = "inputs", "targets", "parts"


class ArraySamples:
    """Samples by number, each with its target.

    Args:
        inputs: (n, c, h, w) or (n, c, t).
        targets: (n, ...).
        preprocess: Says the scale and the type of the samples.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, preprocess: Preprocess) -> None:
        self._inputs, self._targets, self._preprocess = inputs, targets, preprocess

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._inputs)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a sample and its target.

        Raises:
            ValueError: The sample has values beyond the scale.
        """
        return as_sample(np.array(self._inputs[number]), self._preprocess), self._targets[number]


def load_array(
    *,
    root: str,
    classes: Sequence[str],
    scale: float | Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedSamples:
    """Open arrays of inputs and targets.

    Args:
        root: An ``.npz`` file, or a folder of ``.npy`` files: `inputs` (n, c, h, w) or (n, c, t), `targets` (n, ...), and perhaps `parts` (n,) with 0
            for training, 1 for validation and 2 for test samples.
        classes: Names of the classes, or of the predicted figures.
        scale: Value that stands for 1, or (black, white), the values that stand for 0 and 1. Not needed for uint8 images.
        mean: For each channel, of values scaled to [0, 1].
        std: For each channel.

    Raises:
        ConfigError: There are no such arrays, or no scale is given for others than uint8.
    """
    arrays = _open(Path(root))
    inputs, targets, parts = arrays[INPUTS], arrays[TARGETS], arrays.get(PARTS)
    given = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items())
    if inputs.ndim not in (3, 4) or inputs.dtype.kind not in "uif" or 0 in inputs.shape or any(len(array) != len(inputs) for array in arrays.values()):
        allowed = "inputs (n, channels, height, width) or (n, channels, length) of numbers, targets (n, ...), parts (n,)"
        raise _refusal("arrays do not fit each other", given, allowed, "channels come second; one target for each input")
    if scale is None and inputs.dtype != np.uint8:
        fix = "state it: data.options.scale: 65535, or [black, white] such as [-1, 1]"
        raise _refusal("it is not said which values stand for 0 and 1", given, "uint8, or a scale", fix)
    if isinstance(scale, int | float):
        scale = scale_of((0, scale), fractions=inputs.dtype.kind == "f")
    preprocess = make_preprocess(inputs.shape[2:], inputs.shape[1], scale=scale, mean=mean, std=std)
    if parts is not None:
        parts = np.asarray(parts, np.int64)
    samples = ArraySamples(inputs, targets, preprocess)
    return LoadedSamples(samples, np.asarray(targets), tuple(map(str, classes)), "of the user's own data: not stated", preprocess, parts)


def _open(root: Path) -> dict[str, np.ndarray]:
    """Return the arrays; those of a folder stay on the disk."""
    try:
        if root.is_dir():
            arrays = {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(root.glob("*.npy"))}
        elif root.suffix == ".npz":
            with np.load(root, allow_pickle=False) as opened:
                arrays = {name: opened[name] for name in opened.files}
        else:
            arrays = {}
    except (OSError, ValueError) as error:
        raise _refusal("the arrays cannot be read", f"{root} ({error})", "plain arrays of numbers", "save them with numpy.savez or numpy.save") from error
    if not {INPUTS, TARGETS} <= arrays.keys():
        found = ", ".join(arrays) or "none"
        allowed = f"{INPUTS} and {TARGETS} in an .npz file, or {INPUTS}.npy and {TARGETS}.npy in a folder"
        raise _refusal("there are no arrays of inputs and targets", f"{root}: {found}", allowed, "save them under these names")
    return {name: arrays[name] for name in (INPUTS, TARGETS, PARTS) if name in arrays}


def _refusal(problem: str, given: object, allowed: str, fix: str) -> ConfigError:
    return ConfigError(describe(f"data.options: {problem}", given=given, allowed=allowed, fix=fix))
