"""Runs an engine on all images of a part of the data, computes its accuracy, and stores the results in a file."""

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
from bonsai.stages.measurement.measurements import Accuracy, Part
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.tasks.task import Statistics, Task, join, samples_of

RESULTS = "test_results.safetensors"


class Results(NamedTuple):
    """The statistics of both engines on the test images."""

    dense: Statistics
    shipped: Statistics


def open_for_accuracy(engine: Engine, profile: HardwareProfile) -> Run:
    """Open an engine. If its device is not here, open the ONNX file that it was built from in ONNX Runtime."""
    if engine.runnable:
        return backend_of(profile.target).open_engine(engine.folder / engine.file, profile.target)
    return open_graph(engine.folder / MODEL)


def measured_by(engine: Engine) -> str:
    """Return the name of the program that `open_for_accuracy` runs."""
    return "engine" if engine.runnable else "onnxruntime on the same ONNX file"


def observe(run: Run, images: np.ndarray, targets: np.ndarray, task: Task) -> Statistics:
    """Return the task's statistics of each image; images (n, c, h, w) float32 are run one by one."""
    return join([task.per_sample(run(images[i : i + 1]), targets[i : i + 1]) for i in range(len(images))])


def accuracy_of(statistics: Statistics, task: Task, by: str, part: Part) -> Accuracy:
    """Return the metric with its interval."""
    value, low, high = task.bounds(statistics)
    return Accuracy(metric=task.metric.name, value=value, low=low, high=high, n=samples_of(statistics), measured_by=by, part=part)


def save_results(file: Path, results: Results, task: Task) -> None:
    """Write the results of every test image."""
    with written_plainly(file):
        save_file(task.to_tensors(results.dense, results.shipped), file)


def read_results(file: Path, task: Task) -> Results:
    """Read what `save_results` wrote.

    Raises:
        VerificationError: The file is no safetensors, or holds something else.
    """
    fix = "run `bonsai run` again, or copy the package again"
    try:
        found = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise VerificationError(describe(f"{file.name}: cannot be read", given=error, allowed="safetensors", fix=fix)) from error
    try:
        return Results(*task.from_tensors(found))
    except ValueError as error:
        given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in found.items()) or "nothing"
        raise VerificationError(describe(f"{file.name}: no results of a test", given=given, allowed=error, fix=fix)) from error


def digest_of(images: np.ndarray, targets: np.ndarray) -> str:
    """Return the sha256 that tells one part of the data, as the network sees it and in its order, from another; packages keep it, so it stays."""
    digest = hashlib.sha256(repr((images.shape, f"torch.{images.dtype}")).encode())
    for array in (images, targets):
        digest.update(array.tobytes())
    return digest.hexdigest()
