"""ONNX Runtime with an execution provider: OpenVINO on a CPU, CUDA or TensorRT on a GPU.

A provider compiles the graph when it is loaded, and ONNX Runtime cannot save compiled nodes. So the engine is the ONNX file itself, and is
compiled each time it is loaded. Each provider needs its own wheel of ONNX Runtime, and only one wheel can be installed. We have run OpenVINO's
provider, but never those of CUDA and TensorRT.
"""

from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Literal

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Precision, Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.host_cpu import describe_cpu, require_cpu, weight_bits_on
from bonsai.stages.backends.host_gpu import describe_gpu, require_gpu
from bonsai.stages.backends.onnxruntime_engine import ORT_ERRORS, engine_options, runner
from bonsai.stages.backends.onnxruntime_profile import SessionProfile
from bonsai.stages.backends.running import Run
from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.graph.onnx_graph import FloatType

BATCH = "batch"
"""Name of the free dimension in an exported graph."""
Options = dict[str, str]


class ProviderBackend:
    """ONNX Runtime with one execution provider. A graph of which a single node would fall to the CPU's provider is refused.

    The batch is fixed to the target's when a graph is loaded: kernels of a fixed shape are faster.

    Args:
        provider: ONNX Runtime's name of it.
        package: Distribution that brings it.
        dialect: Form of the Q/DQ nodes that it runs as INT8.
        float_beside_int8: Number format beside them.
        precisions: Precisions that it supports.
        options: Returns the provider's options for a target.
        measures_operators: Whether ONNX Runtime's profiler sees how long it computes; on a GPU it sees the launches alone.
    """

    engine_file = "model.onnx"
    ahead_of_time = False
    profiles_kernels = False  # the profiler sees what was compiled as one kernel
    dissects = False
    builds_apart = False

    def __init__(
        self,
        *,
        provider: str,
        package: str,
        dialect: Literal["ort", "trt"],
        float_beside_int8: FloatType,
        precisions: tuple[Precision, ...],
        options: Callable[[Target], Options],
        measures_operators: bool,
    ) -> None:
        self.provider = provider
        self.package = package
        self.dialect: Literal["ort", "trt"] = dialect
        self.float_beside_int8: FloatType = float_beside_int8
        self.measures_operators = measures_operators
        self._precisions = precisions
        self._options = options

    def describe(self, target: Target) -> DeviceInfo:
        """Return this machine's CPU, or its GPU of the target's model.

        Raises:
            DeviceUnavailable: ONNX Runtime here has no such provider, or does not load it.
        """
        require_provider(self.provider, self.package)
        version = metadata.version(self.package)
        return describe_cpu(target, version) if target.device.kind == "cpu" else describe_gpu(target, version)

    def refuse_unsupported(self, target: Target) -> None:
        """Refuse a precision that the provider would not compute in."""
        if target.device.kind == "cpu":
            require_cpu(target)
        asked = [p for p in (target.precision, *target.precisions) if p not in self._precisions]
        if asked:
            raise ConfigError(
                describe(
                    f"runtime {target.runs_on!r} cannot serve this target",
                    given=asked[0],
                    allowed=self._precisions,
                    fix=f"take {asked[0]} from target.precisions, or change target.provider",
                )
            )

    def weight_bits(self, info: DeviceInfo) -> int:
        """Return 8 on a GPU; on a CPU 8, or 7 where the CPU is unknown or its 8-bit products saturate."""
        return weight_bits_on(info) if info.driver is None else 8

    def build(self, graph: Path, engine: Path, target: Target, image_shape: tuple[int, ...]) -> dict[str, int]:
        """Let the provider compile the graph once, and take the graph as the engine; return how many nodes it took, in how many parts.

        Raises:
            BuildError: A node is left to the CPU's provider, or the provider refuses the graph.
        """
        options = engine_options(target.threads)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        parts = self._open(graph, options, target).get_provider_graph_assignment_info()
        if engine != graph:
            copyfile(graph, engine)
        return {"nodes": sum(len(part.get_nodes()) for part in parts), "parts": len(parts)}

    def open_engine(self, engine: Path, target: Target) -> Run:
        """Load a graph; images beyond its batch are run in turns.

        Raises:
            BuildError: The provider does not run it whole.
            DeviceUnavailable: The GPU is not here.
        """
        if target.device.kind == "gpu":
            require_gpu(target, "run")
        return runner(self._open(engine, engine_options(target.threads), target))

    def open_profiled(self, model: bytes | Path, target: Target, scratch: Path) -> SessionProfile:
        """Load an ONNX file under the profiler, which shows what was compiled as one kernel.

        Raises:
            BuildError: The provider does not run it whole.
        """
        options = engine_options(target.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "kernels")
        return SessionProfile(self._open(model, options, target))

    def _open(self, model: bytes | Path, options: ort.SessionOptions, target: Target) -> ort.InferenceSession:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_free_dimension_override_by_name(BATCH, target.batch)
        options.log_severity_level = 4  # it would print what is raised here
        name = model.name if isinstance(model, Path) else "the graph"
        try:
            source = str(model) if isinstance(model, Path) else model
            return ort.InferenceSession(source, options, providers=[(self.provider, self._options(target))], enable_fallback=0)
        except (*ORT_ERRORS, RuntimeError) as error:
            raise BuildError(f"ONNX Runtime cannot run {name} with {self.provider} alone: {error}") from error


@cache
def require_provider(provider: str, package: str) -> None:
    """Check that ONNX Runtime has a provider and loads it: one whose libraries are missing is silently replaced by the CPU's.

    Raises:
        DeviceUnavailable: It has none of that name, does not load it, or is too old to say which nodes a provider took.
    """
    given = f"onnxruntime {ort.__version__} with {', '.join(ort.get_available_providers())}"
    allowed, fix = (
        f"{provider}, onnxruntime 1.24 or later",
        f"pip uninstall onnxruntime, then pip install --force-reinstall {package}: both hold the same files",
    )
    if provider not in ort.get_available_providers() or not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        raise DeviceUnavailable(describe(f"no usable {provider} in the ONNX Runtime that is installed", given=given, allowed=allowed, fix=fix))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["in"], ["out"])], "probe", ends[:1], ends[1:])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    try:
        loaded = ort.InferenceSession(model.SerializeToString(), engine_options(1), providers=[provider], enable_fallback=0).get_providers()
    except (*ORT_ERRORS, RuntimeError) as error:
        loaded, given = [], str(error)
    if provider not in loaded:
        fix = "install the libraries that the provider itself needs (CUDA, cuDNN, TensorRT), in the versions that its documentation names"
        raise DeviceUnavailable(describe(f"ONNX Runtime does not load {provider}", given=given, allowed=allowed, fix=fix))


def _openvino_options(target: Target) -> Options:
    threads = str(target.threads)
    return {"device_type": "CPU", "precision": "FP32", "num_of_threads": threads, "num_streams": "1"}  # FP32: of what is not quantised


def _tensorrt_options(target: Target) -> Options:
    return {"trt_fp16_enable": str(target.precision != "fp32"), "trt_int8_enable": str(target.precision == "int8")}


openvino = ProviderBackend(
    provider="OpenVINOExecutionProvider",
    package="onnxruntime-openvino",
    dialect="ort",
    float_beside_int8="fp32",
    precisions=("fp32", "int8"),
    options=_openvino_options,
    measures_operators=True,
)
cuda = ProviderBackend(
    provider="CUDAExecutionProvider",
    package="onnxruntime-gpu",
    dialect="ort",
    float_beside_int8="fp32",
    precisions=("fp32", "fp16"),  # it has no INT8 convolutions: Q/DQ nodes around float ones only cost time (microsoft/onnxruntime#24807)
    options=lambda target: {},
    measures_operators=False,
)
tensorrt = ProviderBackend(
    provider="TensorrtExecutionProvider",
    package="onnxruntime-gpu",
    dialect="trt",
    float_beside_int8="fp16",
    precisions=("fp32", "fp16", "int8"),
    options=_tensorrt_options,
    measures_operators=False,
)
