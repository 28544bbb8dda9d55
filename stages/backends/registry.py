"""Runtimes by name. A backend is an object that offers what `Backend` names."""

from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from packaging.specifiers import SpecifierSet

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.running import Run
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.graph.onnx_graph import FloatType
from bonsai.stages.imports.registry import resolve

BACKENDS = {
    "onnxruntime": "bonsai.stages.backends.onnxruntime_engine:backend",
    "onnxruntime/openvino": "bonsai.stages.backends.onnxruntime_providers:openvino",
    "onnxruntime/cuda": "bonsai.stages.backends.onnxruntime_providers:cuda",
    "onnxruntime/tensorrt": "bonsai.stages.backends.onnxruntime_providers:tensorrt",
    "openvino": "bonsai.stages.backends.openvino_engine:backend",
    "tensorrt": "bonsai.stages.backends.tensorrt_engine:full",
    "tensorrt-rtx": "bonsai.stages.backends.tensorrt_engine:rtx",
}


class Backend(Protocol):
    """The interface of a runtime.

    Attributes:
        dialect: Form of the Q/DQ nodes that it runs as INT8.
        package: Name of its distribution.
        engine_file: Name of the engine in its folder.
        ahead_of_time: Whether it builds for a device that is not in this machine.
        measures_operators: Whether single operators can be timed on it.
        profiles_kernels: Whether its profile of a whole engine tells the kernels apart.
        dissects: Whether it tells copies from computation on the device, and describes an engine's layers.
        builds_apart: Whether its `build` starts a process of its own; any other is called in one (`stages/backends/apart.py`).
        float_beside_int8: Number format that it runs the layers of an INT8 graph in that stay in float.
    """

    dialect: Literal["ort", "trt"]
    float_beside_int8: FloatType
    package: str
    engine_file: str
    ahead_of_time: bool
    measures_operators: bool
    profiles_kernels: bool
    dissects: bool
    builds_apart: bool

    def describe(self, target: Target) -> DeviceInfo:
        """Return the device and library that engines for `target` will be timed with here."""
        ...

    def refuse_unsupported(self, target: Target) -> None:
        """Raise a ConfigError if the runtime cannot do what the target asks, whatever machine this is."""
        ...

    def weight_bits(self, info: DeviceInfo) -> int:
        """Return the width of weights whose products do not saturate on the device: 8 or 7."""
        ...

    def build(self, graph: Path, engine: Path, target: Target, image_shape: tuple[int, ...]) -> dict[str, int]:
        """Build `engine` from an ONNX file, and return counts such as INT8 and float convolutions."""
        ...

    def open_engine(self, engine: Path, target: Target) -> Run:
        """Load an engine for inference."""
        ...


class DissectingBackend(Backend, Protocol):
    """A backend that `dissects`."""

    def dissect(self, engine: Path, target: Target, images: np.ndarray) -> tuple[np.ndarray, str]:
        """Return milliseconds of copying in, computing and copying out of one batch, (runs, 3) float32, and the engine's layers as JSON."""
        ...


def backend_of(target: Target) -> Backend:
    """Return the backend of a target's runtime and execution provider."""
    backend: Backend = resolve(target.runs_on, BACKENDS, "backend")
    return backend


def check_target(target: Target) -> DeviceInfo:
    """Check that engines for a target can be built here, and describe the device.

    Raises:
        ConfigError: The runtime cannot do what the target asks.
        DeviceUnavailable: The runtime or its execution provider is not installed, has a version that the profile does not allow, or needs the device here.
    """
    backend = backend_of(target)
    backend.refuse_unsupported(target)
    try:
        version = metadata.version(backend.package)
    except metadata.PackageNotFoundError:
        raise DeviceUnavailable(
            describe(
                f"runtime {target.runs_on!r} is not installed",
                given=f"no package {backend.package!r}",
                allowed=target.runtime_version,
                fix=f"pip install '{backend.package}{target.runtime_version}'",
            )
        ) from None
    if version not in SpecifierSet(target.runtime_version, prereleases=True):
        raise DeviceUnavailable(
            describe(
                f"runtime {target.runs_on!r} has a version that the profile does not allow",
                given=version,
                allowed=target.runtime_version,
                fix=f"pip install '{backend.package}{target.runtime_version}', or change target.runtime_version",
            )
        )
    info = backend.describe(target)
    if not info.present and not backend.ahead_of_time:
        raise DeviceUnavailable(
            describe(
                f"runtime {target.runs_on!r} builds engines on their device alone",
                given=f"{target.device.name} is not in this machine",
                allowed=f"a machine with a {target.device.name}",
                fix="give the profile the device's address (docs/devices.md), run this on the device, or choose a runtime that builds ahead of time",
            )
        )
    return info
