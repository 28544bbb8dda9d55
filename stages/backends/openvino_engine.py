"""OpenVINO on the CPU of this machine.

OpenVINO runs an inference on the calling thread. With one thread, that thread does all the work, so its CPU time is a valid
clock for `bonsai.stages.backends.timing` (measured: CPU time of the thread over that of the process 1.00).
"""

import io
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.host_cpu import describe_cpu, require_cpu, weight_bits_on
from bonsai.stages.backends.kernel_profile import Kernel
from bonsai.stages.backends.running import Run, feeder, joined, parts_of
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.onnx_graph import FloatType

DEVICE = "CPU"
INTEGERS = {"u8", "i8"}
NO_KERNELS = {"Const", "Input", "Output", "Reshape"}
"""Layers of the compiled model that do no computation."""
COPIES, BLOCK, CALM = 16, 5, 0.25
"""A profile uses this many copies of the model, runs each this often in turn, and counts this fraction of them."""
CUT_US = 1.0
"""OpenVINO truncates each duration of a kernel to whole microseconds, and their mean again; each loses half a microsecond on average."""


class OpenVinoBackend:
    """The engine is the graph as OpenVINO rewrote it for this CPU; its kernels are generated when it is loaded.

    That is what `export_model` writes, as one file, and it loads in a third of the time that reading and rewriting the ONNX file
    takes. OpenVINO's own format, `engine.xml` and `engine.bin`, would be the graph before it is rewritten, and two files. The blob says
    which version and instructions it needs, and is refused elsewhere; since OpenVINO rewrites a graph for the CPU it is on, there is
    no building ahead of time.

    Of the two dialects it runs both as INT8, ONNX Runtime's faster: in TensorRT's the residual additions stay kernels of their own.
    """

    dialect: Literal["ort", "trt"] = "ort"
    float_beside_int8: FloatType = "fp32"
    package = "openvino"
    engine_file = "engine.blob"
    ahead_of_time = False
    measures_operators = True
    profiles_kernels = True
    dissects = False
    builds_apart = False

    def describe(self, target: Target) -> DeviceInfo:
        """Return the CPU of this machine, or that of the profile."""
        return describe_cpu(target, metadata.version(self.package))

    def refuse_unsupported(self, target: Target) -> None:
        """Refuse all but FP32 and INT8 on a CPU."""
        require_cpu(target)

    def weight_bits(self, info: DeviceInfo) -> int:
        """Return 8, or 7 where the CPU is unknown or its 8-bit products saturate (x86 without VNNI or AMX)."""
        return weight_bits_on(info)

    def build(self, graph: Path, engine: Path, target: Target, image_shape: tuple[int, ...]) -> dict[str, int]:
        """Compile the graph for the target's batch and save it; return how many convolutions run as INT8 and as float kernels.

        Raises:
            BuildError: OpenVINO refuses the graph.
        """
        try:
            model = _core().read_model(graph)
            own = [[side.get_length() for side in list(port.partial_shape)[1:]] for port in model.inputs]
            shapes = own if len(own) > 1 else [image_shape]
            model.reshape({port: [target.batch, *shape] for port, shape in zip(model.inputs, shapes, strict=True)})  # kernels of a fixed shape are faster
            compiled = _core().compile_model(model, DEVICE, _options(target))
        except RuntimeError as error:
            raise BuildError(f"OpenVINO cannot build {graph.name}: {_reason(error)}") from error
        engine.write_bytes(compiled.export_model().read())
        kernels = Counter((kind, precision in INTEGERS) for kind, precision in _layers(compiled))
        return {
            "int8_convolutions": kernels["Convolution", True],
            "float_convolutions": kernels["Convolution", False],
            "kernels": kernels.total(),
        }

    def open_engine(self, engine: Path, target: Target) -> Run:
        """Load an engine; images beyond its batch are run in turns.

        Raises:
            BuildError: OpenVINO cannot load it, as with another version than the one that wrote it.
        """
        return _runner(_load(engine, _options(target)))

    def open_profiled(self, model: bytes | Path, target: Target, scratch: Path) -> "KernelCounters":
        """Load an ONNX file's bytes as `build` would compile it, or the engine at a path as it is.

        Raises:
            BuildError: OpenVINO cannot load it.
        """
        options = {**_options(target), "PERF_COUNT": "YES"}
        if isinstance(model, Path):
            return KernelCounters([_load(model, options) for _ in range(COPIES)])
        read = _core().read_model(model)
        return KernelCounters([_core().compile_model(read, DEVICE, options) for _ in range(COPIES)])


class KernelCounters:
    """OpenVINO's counters of a network's kernels.

    They give no single runs but means of wall time since the network was compiled, which one disturbed run spoils. Hence copies
    of the network that take turns, of which those count that neighbours on a shared machine disturbed least. A copy's first run,
    which is slow, is taken out of its means.
    """

    def __init__(self, copies: list[Any]) -> None:
        self._inputs = {port.get_any_name(): tuple(port.shape)[1:] for port in copies[0].inputs}
        self._requests = [compiled.create_infer_request() for compiled in copies]
        self._first: list[list[float]] = []
        self._clocks = np.zeros((len(copies), 2))
        self._counts = np.zeros(len(copies), dtype=int)

    def feeds(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return a batch as `run` takes it."""
        return feeder(self._inputs)(images)

    def run(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Run one of the copies once."""
        copy = int(self._counts.sum()) // BLOCK % COPIES
        wall, cpu = time.perf_counter(), time.thread_time()
        self._requests[copy].infer(feeds)
        self._clocks[copy] += time.perf_counter() - wall, time.thread_time() - cpu
        self._counts[copy] += 1
        if self._counts[copy] == 1:
            self._first.append(_mean_us(self._requests[copy]))

    def finish(self) -> list[Kernel]:
        """Return the kernels that ran, in their order, with a mean of every copy that counts."""
        ran = len(self._first)
        walls, cpus = self._clocks[:ran].T
        calmest = np.argsort(walls / cpus)[: max(1, int(ran * CALM))]
        times = [self._mean_but_first(copy) for copy in calmest]
        return [
            Kernel(layer.node_name, layer.node_type, "int8" if layer.exec_type.lower().endswith("i8") else "float", np.array(means))
            for layer, *means in zip(_executed(self._requests[0]), *times, strict=True)
        ]

    def _mean_but_first(self, copy: int) -> np.ndarray:
        """Return the mean microseconds of a copy's kernels, (n,)."""
        count, first = int(self._counts[copy]), np.array(self._first[copy])
        if count == 1:
            return first
        means: np.ndarray = (np.array(_mean_us(self._requests[copy])) * count - first) / (count - 1)
        return means.clip(CUT_US / 2)  # of a short one next to nothing may be left


@cache
def _core() -> Any:
    """Return OpenVINO's core. Its telemetry package is blocked first; OpenVINO falls back to a stub."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how Python itself marks a module as not to be imported
    import openvino  # an extra: a profile can be read and refused without it

    return openvino.Core()


def _options(target: Target) -> dict[str, str]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # of what is not quantised: some CPUs would take bf16 unasked
        "INFERENCE_NUM_THREADS": str(target.threads),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_HYPER_THREADING": "YES",  # else it takes fewer threads than asked where two of them share a core
        "ENABLE_CPU_PINNING": "NO",  # every process would be bound to the same first cores
    }


def _load(engine: Path, options: dict[str, str]) -> Any:
    try:
        return _core().import_model(io.BytesIO(engine.read_bytes()), DEVICE, options)
    except RuntimeError as error:
        raise BuildError(f"OpenVINO cannot load {engine.name}: {_reason(error)}") from error


def _runner(compiled: Any) -> Run:
    import openvino

    request = compiled.create_infer_request()
    shapes = [tuple(port.shape) for port in compiled.inputs]
    pixels = [np.zeros(shape, dtype=np.float32) for shape in shapes]
    for place, each in enumerate(pixels):
        request.set_input_tensor(place, openvino.Tensor(each, shared_memory=True))  # saves a tenth of a small network's time over passing arrays
    batch, shapes = shapes[0][0], [shape[1:] for shape in shapes]

    def run_batch(images: np.ndarray) -> np.ndarray:
        for each, part in zip(pixels, parts_of(images, shapes), strict=True):
            each[: len(images)] = part
        request.infer()
        return joined([np.array(request.get_output_tensor(place).data[: len(images)]) for place in range(len(compiled.outputs))])

    def run(images: np.ndarray) -> np.ndarray:
        found = [run_batch(images[first : first + batch]) for first in range(0, len(images), batch)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    return run


def _layers(compiled: Any) -> list[tuple[str, str]]:
    """Return kind and precision of the kernels of a compiled model."""
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    layers = [tuple(str(info[key].astype(str)) for key in ("layerType", "runtimePrecision")) for info in infos]
    return [(kind, precision) for kind, precision in layers if kind not in NO_KERNELS]


def _executed(request: Any) -> list[Any]:
    """Return the counters of all that is executed: not of what was fused into its neighbour, nor of constants."""
    return [layer for layer in request.get_profiling_info() if not layer.exec_type.startswith(("undef", "unknown"))]


def _mean_us(request: Any) -> list[float]:
    return [layer.real_time.total_seconds() * 1e6 + CUT_US for layer in _executed(request)]


def _reason(error: RuntimeError) -> str:
    """Return the last line of OpenVINO's message; those before say where in its source it arose."""
    return [line for line in str(error).splitlines() if line.strip()][-1]


backend = OpenVinoBackend()
