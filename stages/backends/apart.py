"""Builds engines and runs new files in a separate process, because both may crash, hang or use all memory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.store.tensor_files import in_rows
from bonsai.stages.worker import call

HERE = "bonsai.stages.backends.apart"
BUILD_SECONDS, RUN_SECONDS = 600.0, 300.0
"""Time limits in seconds: for a build, and for loading an engine and running a few images."""


def build_engine(graph: Path, engine: Path, target: Target, image_shape: tuple[int, ...]) -> dict[str, int]:
    """Build an engine by the target's backend, as its `build` does, and return what the runtime made of the graph.

    Raises:
        BuildError: The backend refuses the graph, or its process ends.
        DeviceUnavailable: The runtime needs a device that is not here.
    """
    backend = backend_of(target)
    if backend.builds_apart:
        return backend.build(graph, engine, target, image_shape)
    arguments = {"graph": str(graph), "engine": str(engine), "target": target.model_dump_json(), "image_shape": image_shape}
    coverage = call(f"{HERE}:_build_engine", arguments, doing=f"building an engine of {graph.name} with {target.runs_on}", seconds=BUILD_SECONDS)
    return {str(name): int(count) for name, count in coverage.items()}


def run_engine(engine: EngineFile, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Load an engine, and return its outputs for each batch.

    Raises:
        BuildError: The engine cannot be loaded or run, or its process ends.
    """
    with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
        inputs, outputs = Path(scratch) / "inputs.safetensors", Path(scratch) / "outputs.safetensors"
        save_file(in_rows({str(place): batch for place, batch in enumerate(batches)}), inputs)
        arguments = {"engine": engine.model_dump_json(), "inputs": str(inputs), "outputs": str(outputs)}
        call(f"{HERE}:_run_engine", arguments, doing=f"running {engine.file.name} with {engine.target.runs_on}", seconds=RUN_SECONDS)
        found = load_file(outputs)
    return [found[str(place)] for place in range(len(batches))]


def _build_engine(graph: str, engine: str, target: str, image_shape: list[int]) -> dict[str, int]:
    wanted = Target.model_validate_json(target)
    return backend_of(wanted).build(Path(graph), Path(engine), wanted, tuple(image_shape))


def _run_engine(engine: str, inputs: str, outputs: str) -> None:
    wanted = EngineFile.model_validate_json(engine)
    run = backend_of(wanted.target).open_engine(wanted.file, wanted.target)
    save_file(in_rows({name: run(batch) for name, batch in load_file(inputs).items()}), outputs)
