"""Opens an engine with its runtime alone, from bytes whose checksum was found right.

This file imports nothing of Bonsai: a package's `predict.py` holds it as it is. `bonsai verify` and `bonsai run` open engines by
`stages/backends`; a test compares the outputs.
"""

import ctypes
import importlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
"""Runs an engine: inputs (n, ...) float32 to outputs (n, ...) float32; several outputs are flattened and joined, (n, total)."""
INPUT = "input"
PROVIDERS = {"openvino": "OpenVINOExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""ONNX Runtime's name of each execution provider that a profile may name."""
HALF_OPTIMISERS = ["WeightBiasQuantization", "FuseFp16InitializerToFp32NodeTransformer"]
"""ONNX Runtime's optimisers that break graphs with FP16 in them (`stages/backends/reference.py`)."""


class Refused(Exception):
    """Ends the program with one message.

    Args:
        code: Exit code.
        problem: What is wrong, and where.
        given: What was found.
        allowed: What would be accepted.
        fix: What to do.
    """

    def __init__(self, code: int, problem: str, *, given: object, allowed: object, fix: str) -> None:
        super().__init__(f"{problem}\n  given:   {shown(given)}\n  allowed: {shown(allowed)}\n  do:      {fix}")
        self.code = code


def shown(value: object) -> str:
    """Return a text that steers no terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(value))


def open_engine(engine: bytes, manifest: Mapping[str, Any]) -> Run:
    """Load the engine of a package.

    Args:
        engine: Its bytes.
        manifest: ``manifest.json`` of the package.

    Raises:
        Refused: The runtime is not installed, or does not load the engine here.
    """
    target, needed = manifest["profile"]["target"], manifest["compatibility"]
    if target["runtime"] == "openvino":
        return _open_openvino(engine, target, needed)
    if target["runtime"] != "onnxruntime":
        return _open_tensorrt(engine, target, needed)
    runtime = _import("onnxruntime", needed)
    options = _session_options(runtime, target["threads"])
    if target["provider"] == "cpu":
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised already
        return _runner(_loaded(lambda: runtime.InferenceSession(engine, options, providers=["CPUExecutionProvider"]), needed))
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_free_dimension_override_by_name("batch", target["batch"])
    provider = PROVIDERS[target["provider"]], _provider_options(target)
    return _runner(_loaded(lambda: runtime.InferenceSession(engine, options, providers=[provider], enable_fallback=0), needed))


def open_portable(graph: bytes, manifest: Mapping[str, Any]) -> Run:
    """Load ``model.onnx`` of a package in ONNX Runtime, on any CPU.

    Some of ONNX Runtime's optimisers make nodes that no kernel can run, in FP16 above all. Then only the basic optimisers are used.

    Args:
        graph: Its bytes.
        manifest: ``manifest.json`` of the package.

    Raises:
        Refused: ONNX Runtime is not installed, or does not load the file.
    """
    engine, needed = manifest["engine"], {"runtime": "onnxruntime", "runtime_versions": ">=1.22", "device": "any CPU"}
    runtime = _import("onnxruntime", needed)
    holds_halves = engine["precision"] == "fp16" or engine["dialect"] == "trt"
    facts = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": HALF_OPTIMISERS if holds_halves else None}

    def load() -> Any:
        options = _session_options(runtime, threads=1)
        try:
            return runtime.InferenceSession(graph, options, **facts)
        except Exception:  # ONNX Runtime's errors have no other base
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            return runtime.InferenceSession(graph, options, **facts)

    return _runner(_loaded(load, needed))


def _session_options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    return options


def _runner(session: Any) -> Run:
    def run(inputs: np.ndarray) -> np.ndarray:
        return _joined(session.run(None, {INPUT: inputs}))

    batch = session.get_inputs()[0].shape[0]
    return _in_batches(run, batch) if isinstance(batch, int) else run


def _provider_options(target: Mapping[str, Any]) -> dict[str, str]:
    if target["provider"] == "openvino":
        return {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(target["threads"]), "num_streams": "1"}
    if target["provider"] == "tensorrt":
        return {"trt_fp16_enable": str(target["precision"] != "fp32"), "trt_int8_enable": str(target["precision"] == "int8")}
    return {}


def _open_openvino(engine: bytes, target: Mapping[str, Any], needed: Mapping[str, Any]) -> Run:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report the import home; OpenVINO does without
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(target["threads"]),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_HYPER_THREADING": "YES",
        "ENABLE_CPU_PINNING": "NO",
    }
    core = _import("openvino", needed).Core()
    compiled = _loaded(lambda: core.import_model(io.BytesIO(engine), "CPU", options), needed)
    request = compiled.create_infer_request()

    def run(inputs: np.ndarray) -> np.ndarray:
        return _joined([np.array(output) for output in request.infer({INPUT: inputs}).to_tuple()])

    return _in_batches(run, compiled.input(0).shape[0])


def _open_tensorrt(engine: bytes, target: Mapping[str, Any], needed: Mapping[str, Any]) -> Run:
    runtime = _import(target["runtime"].replace("-", "_"), needed)
    gpu = Gpu(needed)
    plan = _loaded(lambda: runtime.Runtime(runtime.Logger(runtime.Logger.ERROR)).deserialize_cuda_engine(engine), needed)
    context = _loaded(plan.create_execution_context, needed)
    outputs = [name for name in map(plan.get_tensor_name, range(plan.num_io_tensors)) if name != INPUT]

    def run(inputs: np.ndarray) -> np.ndarray:
        context.set_input_shape(INPUT, inputs.shape)
        found = {name: np.empty(tuple(context.get_tensor_shape(name)), np.float32) for name in outputs}
        places = {name: gpu.hold(name, array.nbytes) for name, array in {INPUT: inputs, **found}.items()}
        for name, place in places.items():
            context.set_tensor_address(name, place)
        gpu.copy_in(places[INPUT], np.ascontiguousarray(inputs))
        if not context.execute_async_v3(0):
            raise _unusable("TensorRT does not run the engine", "no message", needed)
        for name, array in found.items():
            gpu.copy_out(array, places[name])
        return _joined(list(found.values()))

    is_open = plan.get_tensor_shape(INPUT)[0] == -1
    return run if is_open else _in_batches(run, target["batch"])


class Gpu:
    """Memory on the first GPU that CUDA's driver shows, whose library comes with the driver; `CUDA_VISIBLE_DEVICES` chooses another.

    Args:
        needed: The package's `compatibility`, for messages.
    """

    def __init__(self, needed: Mapping[str, Any]) -> None:
        self._needed = needed
        self._held: dict[str, tuple[int, int]] = {}
        self._driver = _loaded(lambda: ctypes.CDLL("libcuda.so.1"), needed)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def hold(self, name: str, size: int) -> int:
        """Return the address of a buffer of at least so many bytes; one buffer a name is kept."""
        address, held = self._held.get(name, (0, 0))
        if held < size:
            place = ctypes.c_uint64()
            self._call("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(size))
            if address:
                self._call("cuMemFree_v2", ctypes.c_uint64(address))
            address = place.value
            self._held[name] = (address, size)
        return address

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the GPU."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))

    def copy_out(self, array: np.ndarray, address: int) -> None:
        """Fill an array from the GPU, behind all that the GPU was told to do before."""
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            raise _unusable(f"CUDA's driver refuses {function}", f"error {code}", self._needed)


def _joined(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the outputs of an engine, (n, ...) each, as one array: a single one as it is, several flattened and joined, (n, total)."""
    return np.asarray(outputs[0]) if len(outputs) == 1 else np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


def _in_batches(run: Run, batch: int) -> Run:
    """Return a run that takes any number of inputs: in parts of `batch`, the last filled up with its last input."""

    def run_all(inputs: np.ndarray) -> np.ndarray:
        missing = -len(inputs) % batch
        filled = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)]) if missing else inputs
        return np.concatenate([run(filled[first : first + batch]) for first in range(0, len(filled), batch)])[: len(inputs)]

    return run_all


def _import(module: str, needed: Mapping[str, Any]) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        wanted = f"{needed['runtime']}{needed['runtime_versions']}"
        raise Refused(5, f"the runtime {module} cannot be imported", given=error, allowed=wanted, fix=f"pip install '{wanted}'") from error


def _loaded(load: Callable[[], Any], needed: Mapping[str, Any]) -> Any:
    """Return what a runtime loads; a runtime's errors have no base but Exception."""
    try:
        found = load()
    except Exception as error:
        raise _unusable("the engine cannot be loaded here", error, needed) from error
    if found is None:
        raise _unusable("the engine cannot be loaded here", "no message", needed)
    return found


def _unusable(problem: str, given: object, needed: Mapping[str, Any]) -> Refused:
    machine = (needed.get(key) for key in ("system", "architecture", "device"))
    parts = (*machine, *needed.get("isa", ()), f"{needed['runtime']}{needed['runtime_versions']}")
    fix = "run it on the device that it is for; `--portable` runs model.onnx instead, in ONNX Runtime on any CPU"
    return Refused(5, problem, given=given, allowed=", ".join(part for part in parts if part), fix=fix)
