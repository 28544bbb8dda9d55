"""Lists the kernels that a runtime uses for an engine, with their precision and their share of the run time.

    for kernel in profile_kernels(engine.folder / engine.file, target, images, scratch=folder):
        print(kernel.op, kernel.precision, kernel.count, f"{kernel.share:.0%}")

Coverage counts the convolutions that stay float; this says what they cost.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import KernelTime
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.registry import Backend, backend_of
from bonsai.stages.measurement.measurements import KernelShare

RUNS = 200
BLOCK = 10
"""Runs of one engine before the next has its turn."""
SECONDS = 20.0
"""Engines that take turns get fewer runs, but two blocks each, once they have taken this long together."""


class Kernel(NamedTuple):
    """One kernel under a profiler.

    Attributes:
        name: The runtime's name of the node.
        op: The runtime's name of its kind.
        precision: Precision of its computation.
        microseconds: Of its runs, or means of several runs each, (n,).
    """

    name: str
    op: str
    precision: Literal["int8", "float"]
    microseconds: np.ndarray


class Profiled(Protocol):
    """A network under its runtime's profiler."""

    def feeds(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return a batch as `run` takes it: by the names of the inputs, of which several come flattened and joined."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Run it once."""
        ...

    def finish(self) -> list[Kernel]:
        """End the profile and return the kernels that ran, in their order."""
        ...


class ProfilingBackend(Backend, Protocol):
    """A backend that `measures_operators`."""

    def open_profiled(self, model: bytes | Path, target: Target, scratch: Path) -> Profiled:
        """Load an ONNX file's bytes as `build` would optimise it, or the engine at a path as it is."""
        ...


def open_profiled(model: bytes | Path, target: Target, scratch: Path) -> Profiled:
    """Load an ONNX file's bytes, or an engine, under the profiler of the target's runtime, which must have one."""
    backend = backend_of(target)
    assert backend.measures_operators, f"{target.runs_on} has no profiler of kernels"
    return cast(ProfilingBackend, backend).open_profiled(model, target, scratch)


def profile_kernels(engine: Path, target: Target, images: np.ndarray, *, scratch: Path) -> tuple[KernelShare, ...]:
    """Run an engine under the profiler, and return its kernels by kind, the dearest first.

    A profiler slows every kernel down by about a microsecond, which is why shares are given and no milliseconds.

    Args:
        engine: A file that the backend built for a target that is in this machine.
        target: Runtime, threads and batch; a runtime that `profiles_kernels`.
        images: One batch, (batch, c, h, w) float32.
        scratch: A folder for the profiler's files, which are deleted again.

    Raises:
        BuildError: The runtime cannot load the engine.
    """
    profiled = open_profiled(engine, target, scratch)
    feeds = profiled.feeds(images)
    for _ in range(RUNS):
        profiled.run(feeds)
    kinds: dict[tuple[str, Literal["int8", "float"]], list[float]] = {}
    for kernel in profiled.finish():
        kinds.setdefault((kernel.op, kernel.precision), []).append(middle_mean(kernel.microseconds))
    total = sum(sum(times) for times in kinds.values())
    shares = [KernelShare(op=op, precision=precision, count=len(times), share=sum(times) / total) for (op, precision), times in kinds.items()]
    return tuple(sorted(shares, key=lambda kernel: -kernel.share))


def time_kernels(engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], *, scratch: Path) -> dict[str, tuple[KernelTime, ...]]:
    """Run engines in turns under the profiler, so that a drift of the machine affects all of them equally; return the kernels of each.

    Args:
        engines: Files that the backend built for a target that is in this machine; a runtime that `profiles_kernels`.
        inputs: One batch for each engine, (batch, c, h, w) float32.
        scratch: A folder for the profiler's files, which are deleted again.

    Raises:
        BuildError: The runtime cannot load an engine.
    """
    profiled: dict[str, Profiled] = {}
    for number, (name, engine) in enumerate(engines.items()):
        own = scratch / str(number)  # ONNX Runtime names a profile by the second in which it began
        own.mkdir()
        profiled[name] = open_profiled(engine.file, engine.target, own)
    feeds = {name: network.feeds(inputs[name]) for name, network in profiled.items()}
    started = time.monotonic()
    for turn in range(RUNS // BLOCK):
        if turn >= 2 and time.monotonic() - started > SECONDS:
            break
        for name, network in profiled.items():
            for _ in range(BLOCK):
                network.run(feeds[name])
    found = {name: network.finish() for name, network in profiled.items()}
    return {
        name: tuple(KernelTime(name=each.name, op=each.op, precision=each.precision, microseconds=middle_mean(each.microseconds)) for each in kernels)
        for name, kernels in found.items()
    }


def middle_mean(times: np.ndarray) -> float:
    """Return the mean of the middle half."""
    ordered = np.sort(times)
    return float(ordered[len(ordered) // 4 : max(3 * len(ordered) // 4, len(ordered) // 4 + 1)].mean())
