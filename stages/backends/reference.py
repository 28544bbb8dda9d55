"""Runs ONNX files in ONNX Runtime on the host's CPU. Bonsai ships no file that fails here, whatever the device is."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from bonsai.profiles.schema import Precision
from bonsai.stages.backends.machine import read_cpu
from bonsai.stages.backends.onnxruntime_engine import ORT_ERRORS, PROVIDERS, engine_options, runner
from bonsai.stages.backends.running import Run
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.probes import compare_outputs, load_outputs, probes_of
from bonsai.stages.worker import call

BIAS_QUANTIZATION = "WeightBiasQuantization"
"""ONNX Runtime's optimiser that rounds biases to multiples of input scale times weight scale. In FP16 that product is 0, and small biases become 0 too."""
HALF_INITIALIZERS = "FuseFp16InitializerToFp32NodeTransformer"
"""ONNX Runtime's optimiser of the highest level that makes FP16 constants FP32: on some graphs, torch's attention among them, it ends the process
(microsoft/onnxruntime#32405)."""
HERE = "bonsai.stages.backends.reference"
SECONDS = 300.0
"""Time limit for opening a file and running a few images."""


def open_graph(graph: Path, threads: int = 1) -> Run:
    """Open any ONNX file on this machine's CPU, to measure its accuracy (not its latency).

    Some of ONNX Runtime's optimisers make nodes that no kernel can run, for example in FP16. Then only the basic optimisers are used.
    """
    halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in onnx.load(graph).graph.initializer)
    disabled = [BIAS_QUANTIZATION, HALF_INITIALIZERS] if halves else None
    options = engine_options(threads)
    try:
        session = ort.InferenceSession(str(graph), options, providers=PROVIDERS, disabled_optimizers=disabled)
    except ORT_ERRORS:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = ort.InferenceSession(str(graph), options, providers=PROVIDERS, disabled_optimizers=disabled)
    return runner(session)


def open_as_written(model: bytes) -> ort.InferenceSession:
    """Open an ONNX file on this machine's CPU so that each node is computed as it stands there: no optimiser changes it.

    Raises:
        BuildError: ONNX Runtime cannot load it.
    """
    options = engine_options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=PROVIDERS)
    except ORT_ERRORS as error:
        raise BuildError(f"ONNX Runtime cannot open the ONNX file as it is written: {error}") from error


def runtime_here() -> str:
    """Return what a file that is opened here depends on: ONNX Runtime's version and the CPU."""
    return f"{ort.__version__}, {read_cpu()[0]}"


def require_runs(graph: Path, image_shape: tuple[int, ...]) -> None:
    """Run an ONNX file once on a black image.

    Raises:
        BuildError: ONNX Runtime cannot load or run it.
    """
    try:
        open_graph(graph)(np.zeros((1, *image_shape), dtype=np.float32))
    except ORT_ERRORS as error:
        raise BuildError(f"ONNX Runtime cannot run {graph.name}: {error}") from error


def try_graph(graph: Path, precision: Precision, image_shape: tuple[int, ...]) -> float:
    """Open an untrained network's ONNX file in a separate process, and compare its outputs with torch's, which lie beside it.

    Returns:
        What `compare_outputs` returns.

    Raises:
        BuildError: ONNX Runtime refuses the file, its process ends, or its outputs differ from torch's.
    """
    arguments = {"graph": str(graph), "precision": precision, "image_shape": image_shape}
    return float(call(f"{HERE}:_try_graph", arguments, doing=f"opening {graph.name} in ONNX Runtime", seconds=SECONDS))


def _try_graph(graph: str, precision: Precision, image_shape: list[int]) -> float:
    """Run the images together, and the first alone."""
    file = Path(graph)
    expected = load_outputs(file.parent)
    images = probes_of(file, tuple(image_shape), len(expected))
    try:
        run = open_graph(file)
        found = np.concatenate([run(images), run(images[:1])])
    except ORT_ERRORS as error:
        raise BuildError(f"ONNX Runtime cannot run {file.name}: {error}") from error
    return compare_outputs(found, np.concatenate([expected, expected[:1]]), precision, file.name)
