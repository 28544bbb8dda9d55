"""What an engine says of every image of a part of the data, how accurate that is, and the file that keeps it."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.onnxruntime_engine import open_graph
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.errors import VerificationError
from bonsai.stages.graph.names import MODEL
from bonsai.stages.measurement.intervals import wilson
from bonsai.stages.measurement.measurements import Accuracy, Part
from bonsai.stages.store.tensor_files import written_plainly

RESULTS = "test_results.safetensors"
LABELS, DENSE, SHIPPED = "labels", "dense", "engine"
"""Tensors of that file, (n,) int64 each: the classes of the test images, and what both engines took them for."""


class Results(NamedTuple):
    """The test part, image by image: classes, and what the dense and the shipped engine took them for, (n,) int64 each."""

    labels: np.ndarray
    dense: np.ndarray
    shipped: np.ndarray

    @property
    def dense_hits(self) -> np.ndarray:
        """Whether the dense engine was right, (n,) bool."""
        return np.asarray(self.dense == self.labels)

    @property
    def shipped_hits(self) -> np.ndarray:
        """Whether the shipped engine was right, (n,) bool."""
        return np.asarray(self.shipped == self.labels)


def open_for_accuracy(engine: Engine, profile: HardwareProfile) -> Run:
    """Open an engine; where its device is not here, ONNX Runtime on the graph that it was built from."""
    if engine.runnable:
        return backend_of(profile.target).open_engine(engine.folder / engine.file, profile.target)
    return open_graph(engine.folder / MODEL)


def measured_by(engine: Engine) -> str:
    """Return what `open_for_accuracy` runs."""
    return "engine" if engine.runnable else "onnxruntime on the same ONNX file"


def classify(run: Run, images: np.ndarray) -> np.ndarray:
    """Return the class of each image, (n,) int64; images (n, c, h, w) float32 are run one by one."""
    return np.concatenate([run(images[i : i + 1]).argmax(1) for i in range(len(images))]).astype(np.int64)


def accuracy_of(hits: np.ndarray, by: str, part: Part) -> Accuracy:
    """Return top-1 with its interval, from (n,) bool."""
    low, high = wilson(hits)
    return Accuracy(top1=float(hits.mean()), low=low, high=high, n=len(hits), measured_by=by, part=part)


def save_results(file: Path, results: Results) -> None:
    """Write the test part, image by image."""
    with written_plainly(file):
        save_file({LABELS: results.labels, DENSE: results.dense, SHIPPED: results.shipped}, file)


def read_results(file: Path) -> Results:
    """Read what `save_results` wrote.

    Raises:
        VerificationError: The file is no safetensors, or holds something else.
    """
    allowed, fix = f"{LABELS}, {DENSE} and {SHIPPED}, (n,) int64 each", "run `bonsai run` again, or copy the package again"
    try:
        found = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise VerificationError(describe(f"{file.name}: cannot be read", given=error, allowed=f"safetensors with {allowed}", fix=fix)) from error
    arrays = [found.get(name) for name in (LABELS, DENSE, SHIPPED)]
    if any(a is None or a.dtype != np.int64 or a.ndim != 1 or not a.size for a in arrays) or len({len(a) for a in arrays if a is not None}) != 1:
        given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in found.items()) or "nothing"
        raise VerificationError(describe(f"{file.name}: no results of a test", given=given, allowed=allowed, fix=fix))
    return Results(found[LABELS], found[DENSE], found[SHIPPED])


def digest_of(images: np.ndarray, labels: np.ndarray) -> str:
    """Return the sha256 that tells one part of the data, as the network sees it and in its order, from another; packages keep it, so it stays."""
    digest = hashlib.sha256(repr((images.shape, f"torch.{images.dtype}")).encode())
    for array in (images, labels):
        digest.update(array.tobytes())
    return digest.hexdigest()
