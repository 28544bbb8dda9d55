"""ONNX Runtime on the CPU of this machine."""

import os
import platform
from collections import Counter
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from profiles.errors import ConfigError, describe
from profiles.schema import Isa, Target
from stages.artifacts import DeviceInfo
from stages.backends.registry import Run
from stages.errors import BuildError
from stages.graph.exporting import INPUT

FULL_ACCUMULATION = {"avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm"}
"""Instruction sets whose products of 8-bit numbers do not saturate at 16 bits."""
PROVIDERS = ["CPUExecutionProvider"]
ORT_ERRORS = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)
"""What ONNX Runtime raises for a file that it cannot run; the classes share no base but Exception."""


class OnnxRuntimeBackend:
    """The engine is the graph as ONNX Runtime optimised it for this machine."""

    dialect: Literal["ort", "trt"] = "ort"
    package = "onnxruntime"
    engine_file = "engine.onnx"
    ahead_of_time = True
    measures_operators = True

    def describe(self, target: Target) -> DeviceInfo:
        """Return this machine's CPU for ``host``; any other target as its profile describes it, with `present` false.

        Only ``host`` is measured: a CPU that runs the same instructions, and even one of the same name, may be clocked or cooled otherwise.
        """
        name, flags = _cpu()
        return DeviceInfo(
            device=name if target.device.is_host else target.device.name,
            isa=tuple(flag for flag in get_args(Isa) if flag in flags) if target.device.is_host else target.device.isa,
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.machine()}",
            runtime=target.runtime,
            runtime_version=ort.__version__,
            present=target.device.is_host,
        )

    def refuse_unsupported(self, target: Target) -> None:
        """Refuse what ONNX Runtime's CPU kernels lack."""
        if target.device.kind != "cpu" or target.precision == "fp16":
            raise ConfigError(
                describe(
                    "runtime 'onnxruntime' cannot serve this target",
                    given=f"{target.device.kind}, {target.precision}",
                    allowed="cpu with fp32 or int8 (its CPU kernels have no fp16)",
                    fix="change target.precision, or target.runtime to tensorrt or tensorrt-rtx for a gpu",
                )
            )

    def weight_bits(self, info: DeviceInfo) -> int:
        """Return 8, or 7 where the CPU is unknown or its 8-bit products saturate (x86 without VNNI or AMX)."""
        return 8 if FULL_ACCUMULATION & set(info.isa) else 7

    def build(self, graph: Path, engine: Path, target: Target, image_shape: tuple[int, int, int]) -> dict[str, int]:
        """Optimise the graph and save it; return how many convolutions run as INT8 and as float kernels, and which others are INT8."""
        options = _options(target.threads)
        portable, for_this_cpu = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.graph_optimization_level = for_this_cpu if target.device.is_host else portable
        options.optimized_model_filepath = str(engine)
        try:
            ort.InferenceSession(str(graph), options, providers=PROVIDERS)
        except ORT_ERRORS as error:
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
        options = _options(target.threads)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return _runner(ort.InferenceSession(str(engine), options, providers=PROVIDERS))
        except ORT_ERRORS as error:
            raise BuildError(f"ONNX Runtime cannot load {engine.name}: {error}") from error


def open_graph(graph: Path, threads: int = 1) -> Run:
    """Run any ONNX file on this machine's CPU, for its accuracy alone."""
    return _runner(ort.InferenceSession(str(graph), _options(threads), providers=PROVIDERS))


def require_runs(graph: Path, image_shape: tuple[int, int, int]) -> None:
    """Run an ONNX file once on a black image.

    Raises:
        BuildError: ONNX Runtime cannot load or run it.
    """
    try:
        open_graph(graph)(np.zeros((1, *image_shape), dtype=np.float32))
    except ORT_ERRORS as error:
        raise BuildError(f"ONNX Runtime cannot run {graph.name}: {error}") from error


def _runner(session: ort.InferenceSession) -> Run:
    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {INPUT: images})[0])

    return run


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads of one engine would slow the next one down
    options.log_severity_level = 3  # a saved graph is meant for this machine only: no warning about that
    return options


def _cpu() -> tuple[str, set[str]]:
    """Return the CPU's name and instruction flags, from /proc/cpuinfo where there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine(), {"asimd"} if platform.machine() in {"arm64", "aarch64"} else set()
    fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return named.get("model name", platform.machine()), set(named.get("flags", named.get("Features", "")).split())


backend = OnnxRuntimeBackend()
