"""Runs an engine on all images of a part of the data, and stores the results in a file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.errors import VerificationError
from bonsai.stages.graph.names import MODEL
from bonsai.stages.store.tensor_files import in_rows, written_plainly
from bonsai.stages.tasks.task import Statistics, Task

RESULTS = "test_results.safetensors"


class Results(NamedTuple):
    """The statistics of both engines on the test images; `dense` is None if there is no reference."""

    dense: Statistics | None
    shipped: Statistics


def run_for_accuracy(engine: Engine, target: Target, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Run an engine on every batch. If its device is not here, run the ONNX file that it was built from in ONNX Runtime."""
    if engine.runnable:
        return device_of(target).run(engine.for_target(target), batches)
    return map(open_graph(engine.folder / MODEL), batches)


def measured_by(engine: Engine) -> str:
    """Return the name of the program that `run_for_accuracy` runs."""
    return "engine" if engine.runnable else "onnxruntime on the same ONNX file"


def save_results(file: Path, results: Results, task: Task) -> None:
    """Write the results of every test image."""
    with written_plainly(file):
        save_file(in_rows(task.to_tensors(results.dense, results.shipped)), file)


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
