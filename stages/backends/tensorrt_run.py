"""Runs a TensorRT engine on a GPU of this machine; torch holds its buffers."""

import importlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bonsai.profiles.errors import describe
from bonsai.stages.backends.running import feeder, joined
from bonsai.stages.backends.tensorrt_build import DYNAMIC, message_logger
from bonsai.stages.errors import DeviceUnavailable

DISSECTED_RUNS, WARM_RUNS = 500, 50
"""Number of timed runs, and of warm-up runs before them."""


class PlanRunner:
    """One engine on one GPU: images in main memory to outputs in main memory, so that timing it counts both copies.

    Args:
        trt: The library.
        plan: The serialised engine.
        device: The GPU.
        batch: The most images that the engine takes at once; more are run in turns.

    Attributes:
        dynamic: Whether it takes fewer images too.

    Raises:
        DeviceUnavailable: The library does not load the engine here.
    """

    def __init__(self, trt: Any, plan: bytes, device: torch.device, batch: int) -> None:
        self._device = device
        self._batch = batch
        self._logger = message_logger(trt)
        self._trt = trt
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's; the default stream costs extra synchronisation
            self._engine = _deserialize(trt, plan, self._logger)
            self._context = _create_context(trt, self._engine)
        self._require(self._context is not None)
        tensors = [str(self._engine.get_tensor_name(place)) for place in range(self._engine.num_io_tensors)]
        inputs = {name: tuple(self._engine.get_tensor_shape(name)) for name in tensors if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self._outputs = [name for name in tensors if name not in inputs]
        self._feeds = feeder({name: shape[1:] for name, shape in inputs.items()})
        self.dynamic = all(shape[0] == DYNAMIC for shape in inputs.values())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map images (n, c, h, w) float32 to outputs (n, ...) float32."""
        parts = [self._run(images[first : first + self._batch]) for first in range(0, len(images), self._batch)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def time_parts(self, images: np.ndarray) -> np.ndarray:
        """Return milliseconds of copying in, computing and copying out by CUDA events, (runs, 3) float32.

        The stream is the engine's own and nothing overlaps: no CUDA graph, no spinning, host memory that is not pinned, as in `__call__`.

        Args:
            images: At most a batch, (n, c, h, w) float32.
        """
        runs: list[list[torch.cuda.Event]] = []

        def mark() -> None:
            runs[-1].append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]  # torch's
            runs[-1][-1].record(self._stream)

        for _ in range(WARM_RUNS + DISSECTED_RUNS):
            runs.append([])
            self._run(images, mark)
        self._stream.synchronize()
        parts = [[start.elapsed_time(end) for start, end in pairwise(events)] for events in runs[WARM_RUNS:]]
        return np.array(parts, dtype=np.float32)

    def describe_layers(self) -> str:
        """Return what the library tells of every layer of the engine, as JSON."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _run(self, images: np.ndarray, mark: Callable[[], None] = lambda: None) -> np.ndarray:
        """Run at most a batch; `mark` is called before and after each copy, on the engine's stream."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            feeds = {name: np.ascontiguousarray(part) for name, part in self._feeds(images).items()}
            pixels = {name: torch.empty(part.shape, device=self._device) for name, part in feeds.items()}
            for name, part in pixels.items():
                self._require(self._context.set_input_shape(name, tuple(part.shape)))
            outputs = {name: torch.empty(tuple(self._context.get_tensor_shape(name)), device=self._device) for name in self._outputs}
            for name, tensor in (*pixels.items(), *outputs.items()):
                self._context.set_tensor_address(name, tensor.data_ptr())
            mark()
            for name, part in pixels.items():
                part.copy_(torch.from_numpy(feeds[name]))
            mark()
            self._require(self._context.execute_async_v3(self._stream.cuda_stream))
            mark()
            found = joined([output.cpu().numpy() for output in outputs.values()])  # waits for the stream
            mark()
            return found

    def _require(self, succeeded: bool) -> None:
        if not succeeded:
            raise _unusable("the engine does not run here", self._logger.messages)


def load_plan(engine: Path, *, library: str, sm: str, batch: int) -> PlanRunner:
    """Load an engine on the first GPU of a compute capability.

    Raises:
        DeviceUnavailable: The library, torch's CUDA or such a GPU is not here, or the library does not load the engine.
    """
    try:
        trt = importlib.import_module(library)
    except (ImportError, OSError) as error:
        raise _unusable(f"library {library!r} cannot be imported", [str(error)]) from error
    return PlanRunner(trt, engine.read_bytes(), _cuda_device(sm), batch)


def _deserialize(trt: Any, plan: bytes, logger: Any) -> Any:
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = False  # the default, said aloud: a plan must not bring code for the CPU
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _unusable("the engine cannot be loaded here", logger.messages)
    return engine


def _create_context(trt: Any, engine: Any) -> Any:
    """Return an execution context whose kernels are final from the first run on.

    TensorRT for RTX compiles kernels on the device. By default it starts with general ones and exchanges them
    when a thread of its own has compiled better ones, in the middle of what is timed.
    """
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(runtime_config=config)


def _cuda_device(sm: str) -> torch.device:
    found = ["{}.{}".format(*torch.cuda.get_device_capability(index)) for index in range(torch.cuda.device_count())]
    if sm not in found:
        raise DeviceUnavailable(
            describe(
                f"torch {torch.__version__} sees no GPU of compute capability {sm}",
                given=", ".join(found) or "no GPU",
                allowed=sm,
                fix="install a CUDA build of torch; if CUDA_VISIBLE_DEVICES is set, let it name the GPU",
            )
        )
    return torch.device("cuda", found.index(sm))


def _unusable(problem: str, messages: list[str]) -> DeviceUnavailable:
    return DeviceUnavailable(
        describe(
            problem,
            given="; ".join(messages[:2]) or "no message of the library",
            allowed="an engine built for this GPU with the runtime version installed here",
            fix="build the engine again with this runtime, or install the runtime that its manifest names",
        )
    )
