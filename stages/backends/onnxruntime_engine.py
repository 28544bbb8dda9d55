"""ONNX Runtime on the CPU of this machine."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.host_cpu import describe_cpu, require_cpu, weight_bits_on
from bonsai.stages.backends.onnxruntime_profile import SessionProfile
from bonsai.stages.backends.running import Run, feeder, in_batches, joined
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.onnx_graph import FloatType
from bonsai.stages.store.room import require_room

PROVIDERS = ["CPUExecutionProvider"]
ORT_ERRORS = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)
"""Errors that ONNX Runtime raises for a file that it cannot run. Their only common base class is Exception."""


class OnnxRuntimeBackend:
    """The engine is the graph as ONNX Runtime optimised it for this machine."""

    dialect: Literal["ort", "trt"] = "ort"
    float_beside_int8: FloatType = "fp32"
    package = "onnxruntime"
    engine_file = "engine.onnx"
    ahead_of_time = True
    measures_operators = True
    profiles_kernels = True
    dissects = False
    builds_apart = False

    def describe(self, target: Target) -> DeviceInfo:
        """Return the CPU of this machine, or that of the profile."""
        return describe_cpu(target, ort.__version__)

    def refuse_unsupported(self, target: Target) -> None:
        """Refuse what ONNX Runtime's CPU kernels lack."""
        require_cpu(target)

    def weight_bits(self, info: DeviceInfo) -> int:
        """Return 8, or 7 where the CPU is unknown or its 8-bit products saturate (x86 without VNNI or AMX)."""
        return weight_bits_on(info)

    def build(self, graph: Path, engine: Path, target: Target, image_shape: tuple[int, ...]) -> dict[str, int]:
        """Optimise the graph and save it; return how many convolutions run as INT8 and as float kernels, and which others are INT8."""
        options = engine_options(target.threads)
        portable, for_this_cpu = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.graph_optimization_level = for_this_cpu if target.device.is_host else portable
        options.optimized_model_filepath = str(engine)
        try:
            ort.InferenceSession(str(graph), options, providers=PROVIDERS)
        except ORT_ERRORS as error:
            engine.unlink(missing_ok=True)
            require_room(engine.parent, graph.stat().st_size)  # of a full disk it says "Protobuf serialization failed"
            raise BuildError(f"ONNX Runtime cannot build {graph.name}: {error}") from error
        kernels = Counter(node.op_type for node in onnx.load(engine).graph.node)
        return {
            "int8_convolutions": kernels["QLinearConv"],
            "float_convolutions": kernels["Conv"] + kernels["FusedConv"] + kernels["ConvTranspose"],
            "int8_products": kernels["QGemm"] + kernels["QLinearMatMul"] + kernels["MatMulIntegerToFloat"],
            "float_products": kernels["Gemm"] + kernels["MatMul"] + kernels["FusedGemm"] + kernels["FusedMatMul"],
            "int8_additions": kernels["QLinearAdd"],
            "int8_multiplications": kernels["QLinearMul"],
            "int8_concatenations": kernels["QLinearConcat"],
            "kernels": kernels.total(),
        }

    def open_engine(self, engine: Path, target: Target) -> Run:
        """Load an optimised graph as it is, without optimising it again.

        Raises:
            BuildError: ONNX Runtime cannot load it, as on a CPU other than the one it was optimised for.
        """
        return runner(open_session(engine, engine_options(target.threads)))

    def open_profiled(self, model: bytes | Path, target: Target, scratch: Path) -> SessionProfile:
        """Load an ONNX file's bytes as `build` would optimise it, or the engine at a path as it is.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        options = engine_options(target.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "kernels")
        return SessionProfile(open_session(model, options) if isinstance(model, Path) else ort.InferenceSession(model, options, providers=PROVIDERS))


def open_session(engine: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load an optimised graph as it is, under options that are changed to that effect.

    Raises:
        BuildError: ONNX Runtime cannot load it, as on a CPU other than the one it was optimised for.
    """
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(engine), options, providers=PROVIDERS)
    except ORT_ERRORS as error:
        raise BuildError(f"ONNX Runtime cannot load {engine.name}: {error}") from error


def write_ort_format(engine: Path, file: Path) -> None:
    """Write an engine as a file in ORT format (``*.ort``), the only one that ONNX Runtime's minimal builds read.

    Raises:
        BuildError: ONNX Runtime cannot load the engine.
    """
    options = engine_options(threads=1)
    options.optimized_model_filepath = str(file)
    options.add_session_config_entry("session.save_model_format", "ORT")
    open_session(engine, options)


def runner(session: ort.InferenceSession) -> Run:
    """Return what runs a session on any number of images."""
    inputs = session.get_inputs()
    feeds = feeder({each.name: tuple(each.shape[1:]) for each in inputs})

    def run(images: np.ndarray) -> np.ndarray:
        return joined([np.asarray(output) for output in session.run(None, feeds(images))])

    batch = inputs[0].shape[0]
    return in_batches(run, batch) if isinstance(batch, int) else run


def engine_options(threads: int) -> ort.SessionOptions:
    """Return the options that every engine is run with."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads of one engine would slow the next one down
    options.log_severity_level = 3  # a saved graph is meant for this machine only: no warning about that
    return options


backend = OnnxRuntimeBackend()
