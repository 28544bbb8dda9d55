"""Lists the kernels that a runtime uses for an engine, with their precision and their share of the run time.

    for kernel in profile_kernels(engine.folder / engine.file, target, images, scratch=folder):
        print(kernel.op, kernel.precision, kernel.count, f"{kernel.share:.0%}")

Coverage counts the convolutions that stay float; this says what they cost.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.registry import Backend, backend_of
from bonsai.stages.graph.names import INPUT
from bonsai.stages.measurement.measurements import KernelShare

RUNS = 200


class Kernel(NamedTuple):
    """One kernel under a profiler.

    Attributes:
        op: The runtime's name of its kind.
        precision: Precision of its computation.
        microseconds: Of its runs, or means of several runs each, (n,).
    """

    op: str
    precision: Literal["int8", "float"]
    microseconds: np.ndarray


class Profiled(Protocol):
    """A network under its runtime's profiler."""

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
    for _ in range(RUNS):
        profiled.run({INPUT: images})
    kinds: dict[tuple[str, Literal["int8", "float"]], list[float]] = {}
    for kernel in profiled.finish():
        kinds.setdefault((kernel.op, kernel.precision), []).append(middle_mean(kernel.microseconds))
    total = sum(sum(times) for times in kinds.values())
    shares = [KernelShare(op=op, precision=precision, count=len(times), share=sum(times) / total) for (op, precision), times in kinds.items()]
    return tuple(sorted(shares, key=lambda kernel: -kernel.share))


def middle_mean(times: np.ndarray) -> float:
    """Return the mean of the middle half."""
    ordered = np.sort(times)
    return float(ordered[len(ordered) // 4 : max(3 * len(ordered) // 4, len(ordered) // 4 + 1)].mean())
