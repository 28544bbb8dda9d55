"""Builds engines and runs new files in a separate process, because both may crash, hang or use all memory."""

from pathlib import Path

import numpy as np

from bonsai.profiles.schema import Precision, Target
from bonsai.stages.backends.onnxruntime_engine import ORT_ERRORS, open_graph
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.probes import compare_outputs, load_outputs, probe_images
from bonsai.stages.worker import call

HERE = "bonsai.stages.backends.apart"
BUILD_SECONDS, RUN_SECONDS = 600.0, 300.0
"""Time limits in seconds: for a build, and for opening a file and running a few images."""


def build_engine(graph: Path, engine: Path, target: Target, image_shape: tuple[int, int, int]) -> dict[str, int]:
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


def try_engine(engine: Path, target: Target, probes: Path, image_shape: tuple[int, int, int]) -> float:
    """Run an engine of an untrained network, and return how its outputs follow torch's, as `compare_outputs` does.

    Args:
        engine: An engine for this machine's CPU.
        target: The target that it was built for.
        probes: Folder with torch's outputs.
        image_shape: (channels, height, width).

    Raises:
        BuildError: It cannot be loaded or run, its process ends, or its outputs are others.
    """
    arguments = {"engine": str(engine), "target": target.model_dump_json(), "probes": str(probes), "image_shape": image_shape}
    return float(call(f"{HERE}:_try_engine", arguments, doing=f"running {engine.name} with {target.runs_on}", seconds=RUN_SECONDS))


def try_graph(graph: Path, precision: Precision, image_shape: tuple[int, int, int]) -> float:
    """Open an untrained network's ONNX file in ONNX Runtime on this CPU, and return how its outputs follow torch's, which lie beside it.

    Raises:
        BuildError: ONNX Runtime refuses it, its process ends, or its outputs are others.
    """
    arguments = {"graph": str(graph), "precision": precision, "image_shape": image_shape}
    return float(call(f"{HERE}:_try_graph", arguments, doing=f"opening {graph.name} in ONNX Runtime", seconds=RUN_SECONDS))


def _build_engine(graph: str, engine: str, target: str, image_shape: list[int]) -> dict[str, int]:
    wanted = Target.model_validate_json(target)
    return backend_of(wanted).build(Path(graph), Path(engine), wanted, _shape(image_shape))


def _try_engine(engine: str, target: str, probes: str, image_shape: list[int]) -> float:
    wanted = Target.model_validate_json(target)
    run = backend_of(wanted).open_engine(Path(engine), wanted)
    return _compare(run, Path(probes), wanted.precision, _shape(image_shape), Path(engine).name)


def _try_graph(graph: str, precision: Precision, image_shape: list[int]) -> float:
    file = Path(graph)
    try:
        return _compare(open_graph(file), file.parent, precision, _shape(image_shape), file.name)
    except ORT_ERRORS as error:
        raise BuildError(f"ONNX Runtime cannot run {file.name}: {error}") from error


def _compare(run: Run, probes: Path, precision: Precision, image_shape: tuple[int, int, int], name: str) -> float:
    """Run the images together, and the first alone."""
    expected = load_outputs(probes)
    images = probe_images(image_shape, len(expected))
    found = np.concatenate([run(images), run(images[:1])])
    return compare_outputs(found, np.concatenate([expected, expected[:1]]), precision, name)


def _shape(image_shape: list[int]) -> tuple[int, int, int]:
    channels, height, width = image_shape
    return channels, height, width
