"""TensorRT and TensorRT for RTX: two libraries with one Python API, served by one implementation.

TensorRT builds for the GPU in this machine, TensorRT for RTX ahead of time and without any. Neither is imported here: the build has a
process of its own (`tensorrt_build.py`), and only running an engine brings the library into this one (`tensorrt_run.py`).
"""

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.host_gpu import describe_gpu, require_gpu
from bonsai.stages.backends.running import Run, in_batches
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE, Request
from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.graph.onnx_graph import FloatType
from bonsai.stages.graph.sparsity import count_sparse
from bonsai.stages.interpreter import run_file

if TYPE_CHECKING:
    from bonsai.stages.backends.tensorrt_run import PlanRunner

BUILD_SECONDS = 600.0
"""Time limit of a build, in seconds."""
BUILD_FILE = Path(__file__).with_name("tensorrt_build.py")
TURING = "7.5"
RTX_CAPABILITIES = (TURING, "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT for RTX builds for."""


class TensorRTBackend:
    """One of the two libraries.

    An engine takes 1 to `target.batch` images and is tuned for `target.batch`. FP32 convolutions and products may run as TF32, the
    library's default. Both libraries are strongly typed: FP16 stands in the graph, also beside INT8.

    Args:
        library: Import name.
        package: Name of the distribution.
        ahead_of_time: Whether it builds for a compute capability, with no such GPU at hand.
    """

    dialect: Literal["ort", "trt"] = "trt"
    float_beside_int8: FloatType = "fp16"
    engine_file = "engine.plan"
    measures_operators = False
    profiles_kernels = False
    dissects = True
    builds_apart = True

    def __init__(self, *, library: str, package: str, ahead_of_time: bool) -> None:
        self.library = library
        self.package = package
        self.ahead_of_time = ahead_of_time

    def describe(self, target: Target) -> DeviceInfo:
        """Return this machine's GPU of the target's model, or the target's name with `present` false."""
        return describe_gpu(target, metadata.version(self.package))

    def refuse_unsupported(self, target: Target) -> None:
        """Refuse what the library, or the graphs that Bonsai exports for it, cannot do."""
        problem = f"runtime {target.runtime!r} cannot serve this target"
        device, precision = target.device, target.precision
        if device.kind != "gpu":
            raise ConfigError(describe(problem, given=device.kind, allowed="gpu", fix="change target.device, or target.runtime to onnxruntime for a cpu"))
        if target.timing_cache is not None and not Path(target.timing_cache).is_file():
            fix = f"check the path, or leave the key out: every build writes {TIMING_CACHE} beside its engine"
            raise ConfigError(describe("target.timing_cache: no such file", given=target.timing_cache, allowed="a file of an earlier build", fix=fix))
        if self.ahead_of_time and device.sm == TURING and "fp32" in (precision, *target.precisions):
            raise ConfigError(
                describe(
                    f"{problem}: it builds no FP32 graphs for Turing (FP32 GEMM is not supported)",
                    given=f"sm {device.sm}, {', '.join(target.precisions)}",
                    allowed="fp16, int8",
                    fix="take fp32 from target.precisions; or change target.runtime to tensorrt, and build on the device",
                )
            )
        if self.ahead_of_time and device.sm not in RTX_CAPABILITIES:
            raise ConfigError(
                describe(
                    f"{problem}: it does not build for this compute capability",
                    given=f"sm {device.sm}",
                    allowed=f"sm {', '.join(RTX_CAPABILITIES)}",
                    fix="change target.runtime to tensorrt, and build on the device",
                )
            )

    def weight_bits(self, info: DeviceInfo) -> int:
        """Return 8: products of 8-bit numbers accumulate in 32 bits on every GPU."""
        return 8

    def build(self, graph: Path, engine: Path, target: Target, image_shape: tuple[int, ...]) -> dict[str, int]:
        """Build the engine in a process of its own; return counts of layers in the network as the library parsed it, and of sparse ones.

        Raises:
            BuildError: The library refuses the graph, crashes or takes more than `BUILD_SECONDS`.
            DeviceUnavailable: The library is not here, or it needs a GPU that is not here.
        """
        environment = dict(os.environ)
        if not self.ahead_of_time:  # an environment that names its GPUs itself keeps its word
            environment.setdefault("CUDA_VISIBLE_DEVICES", require_gpu(target, "built").uuid)
        if target.timing_cache is not None:
            shutil.copyfile(target.timing_cache, engine.with_name(TIMING_CACHE))
        part = engine.with_name(f"{engine.name}.part")
        request = Request(
            library=self.library,
            graph=str(graph.resolve()),
            engine=str(part.resolve()),
            image_shape=image_shape,
            batch=target.batch,
            sparse_weights=target.sparse_weights,
            timing_cache=None if self.ahead_of_time else str(engine.with_name(TIMING_CACHE).resolve()),
            capability=f"SM{target.device.sm}".replace(".", "") if self.ahead_of_time else None,
        )
        try:
            coverage = self._answer(request, environment)
            os.replace(part, engine)
        finally:
            part.unlink(missing_ok=True)
        return coverage | count_sparse(onnx.load(graph))

    def open_engine(self, engine: Path, target: Target) -> Run:
        """Load an engine on this machine's GPU of the target's model.

        Raises:
            DeviceUnavailable: There is no such GPU, or the library does not load the engine.
        """
        runner = self._load(engine, target)
        return runner if runner.dynamic else in_batches(runner, target.batch)

    def dissect(self, engine: Path, target: Target, images: np.ndarray) -> tuple[np.ndarray, str]:
        """Time the parts of an inference on the device, and have the library describe the engine's layers.

        Args:
            engine: Built for a GPU that is in this machine.
            target: The target that it was built for.
            images: One batch, (batch, c, h, w) float32.

        Returns:
            Milliseconds of copying in, computing and copying out, (runs, 3) float32, and the layers as JSON.

        Raises:
            DeviceUnavailable: There is no such GPU, or the library does not load the engine.
        """
        runner = self._load(engine, target)
        return runner.time_parts(images), runner.describe_layers()

    def _load(self, engine: Path, target: Target) -> "PlanRunner":
        try:
            from bonsai.stages.backends.tensorrt_run import load_plan  # here: torch holds the buffers of an engine that runs, and building needs none
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            problem, fix = "an engine of TensorRT cannot run here: torch, which holds its buffers on the GPU, is not installed", "pip install torch"
            raise DeviceUnavailable(describe(problem, given=engine.name, allowed="a CUDA build of torch", fix=fix)) from error
        return load_plan(engine, library=self.library, sm=require_gpu(target, "run").sm, batch=target.batch)

    def _answer(self, request: Request, environment: dict[str, str]) -> dict[str, int]:
        """Return the coverage that the building process reports, or raise what it reports instead."""
        graph = Path(request.graph).name
        answer = _run_builder(request, environment)
        if "unavailable" in answer:
            raise DeviceUnavailable(
                describe(
                    f"library {self.library!r} cannot be imported",
                    given=answer["unavailable"],
                    allowed="a working installation",
                    fix=f"pip install {self.package}",
                )
            )
        if "refused" in answer:
            raise BuildError("\n  ".join([f"{self.package} cannot build {graph}:", *(answer["refused"][:3] or ["it gives no reason"])]))
        return {str(name): int(count) for name, count in answer["coverage"].items()}


def _run_builder(request: Request, environment: dict[str, str]) -> dict[str, Any]:
    """Run the building process and return its answer.

    Raises:
        BuildError: It crashes, or takes more than `BUILD_SECONDS`.
    """
    graph = Path(request.graph).name
    command = run_file(BUILD_FILE)
    try:
        process = subprocess.run(
            command,
            input=json.dumps(asdict(request)),
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{request.library} did not build {graph} within {BUILD_SECONDS:g} s; its process was ended") from None
    if process.returncode != 0:
        last_words = process.stderr.strip().splitlines()[-1:] or ["it left no message"]
        raise BuildError(f"the process in which {request.library} builds {graph} ended with code {process.returncode}: {last_words[0]}")
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])  # the library may print before it
    return answer


full = TensorRTBackend(library="tensorrt", package="tensorrt", ahead_of_time=False)
rtx = TensorRTBackend(library="tensorrt_rtx", package="tensorrt-rtx", ahead_of_time=True)
