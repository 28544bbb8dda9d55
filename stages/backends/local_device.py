"""Implements `Device` for this machine, by its backends. Whatever may crash is done in a separate process."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.apart import build_engine, run_engine
from bonsai.stages.backends.device import Built, EngineParts, KernelTime, MeasuredOperator, OperatorPoint, Timing, TimingProtocol
from bonsai.stages.backends.engine import DeviceInfo, EngineFile
from bonsai.stages.backends.kernel_profile import profile_kernels, time_kernels
from bonsai.stages.backends.process_timing import time_in_process
from bonsai.stages.backends.registry import DissectingBackend, backend_of, check_target
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE
from bonsai.stages.measurement.measurements import KernelShare
from bonsai.stages.measurement.timing_lock import inheritable
from bonsai.stages.store.artifact import sha256_file


class LocalDevice:
    """The machine that Bonsai runs on. The caller of a timing holds the machine's lock (`stages/measurement/timing_lock.py`)."""

    def describe(self, target: Target) -> DeviceInfo:
        """See `Device`."""
        return check_target(target)

    def build(self, graph: Path, folder: Path, target: Target, image_shape: tuple[int, ...]) -> Built:
        """See `Device`."""
        file = backend_of(target).engine_file
        coverage = build_engine(graph, folder / file, target, image_shape)
        timings = folder / TIMING_CACHE
        return Built(file=file, coverage=coverage, timing_cache=sha256_file(timings) if timings.exists() else "")

    def run(self, engine: EngineFile, batches: Iterable[np.ndarray], *, untried: bool = False) -> Iterator[np.ndarray]:
        """See `Device`."""
        if untried:
            return iter(run_engine(engine, list(batches)))
        return map(self.open(engine), batches)

    def open(self, engine: EngineFile) -> Run:
        """See `Device`."""
        return backend_of(engine.target).open_engine(engine.file, engine.target)

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        """See `Device`."""
        return time_in_process(engines, inputs, protocol, inheritable())

    def operators(self, points: Sequence[OperatorPoint], target: Target) -> Iterator[MeasuredOperator]:
        """See `Device`."""
        from bonsai.stages.backends.operator_timing import measure_operator  # here: it imports onnx, which timing a package does not need

        with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
            for point in points:
                entry, contention = measure_operator(*point, target, scratch=Path(scratch))
                yield MeasuredOperator(entry=entry, contention=contention)

    def kernels(self, engine: EngineFile, inputs: np.ndarray) -> tuple[KernelShare, ...]:
        """See `Device`."""
        with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
            return profile_kernels(engine.file, engine.target, inputs, scratch=Path(scratch))

    def kernel_times(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[KernelTime, ...]]:
        """See `Device`."""
        with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
            return time_kernels(engines, inputs, scratch=Path(scratch))

    def dissect(self, engine: EngineFile, inputs: np.ndarray) -> EngineParts:
        """See `Device`."""
        return EngineParts(*cast(DissectingBackend, backend_of(engine.target)).dissect(engine.file, engine.target, inputs))


local = LocalDevice()
