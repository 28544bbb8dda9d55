"""Implements `Device` for this machine, by its backends. Whatever may crash is done in a separate process."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.apart import build_engine, run_engine
from bonsai.stages.backends.checking_up import check_up
from bonsai.stages.backends.checkup import Checkup
from bonsai.stages.backends.condition import read_condition, watched
from bonsai.stages.backends.device import Built, EngineParts, KernelTime, MeasuredOperator, OperatorPoint, Timing, TimingProtocol
from bonsai.stages.backends.emulation import refuse_emulated
from bonsai.stages.backends.engine import DeviceInfo, EngineFile
from bonsai.stages.backends.kernel_profile import profile_kernels, time_kernels
from bonsai.stages.backends.machine import Machine, this_machine
from bonsai.stages.backends.process_timing import time_in_process
from bonsai.stages.backends.registry import DissectingBackend, backend_of, check_target
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE
from bonsai.stages.measurement.measurements import KernelShare
from bonsai.stages.measurement.timing_lock import hold_timing, inheritable
from bonsai.stages.store.artifact import sha256_file


class LocalDevice:
    """The machine that Bonsai runs on. It is held by the machine's lock (`stages/measurement/timing_lock.py`)."""

    def describe(self, target: Target) -> DeviceInfo:
        """See `Device`."""
        return check_target(target)

    def machine(self) -> Machine:
        """See `Device`."""
        return this_machine()

    def check_up(self) -> Checkup:
        """See `Device`."""
        return check_up()

    def hold(self) -> AbstractContextManager[None]:
        """See `Device`."""
        return hold_timing()

    def verify(self, package: Path) -> list[str]:
        """See `Device`."""
        from bonsai.stages.delivery.verification import verify_package  # here: packages are made of engines, not engines of packages

        return verify_package(package, require_run=True)

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
        refuse_emulated()
        gpu = any(engine.target.device.kind == "gpu" for engine in engines.values())
        timing, conditions = watched(lambda: time_in_process(engines, inputs, protocol, inheritable()), partial(read_condition, gpu=gpu))
        return timing._replace(conditions=conditions)

    def operators(self, points: Sequence[OperatorPoint], target: Target) -> Iterator[MeasuredOperator]:
        """See `Device`."""
        refuse_emulated()
        from bonsai.stages.backends.operator_timing import measure_operator  # here: it imports onnx, which timing a package does not need

        with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
            for point in points:
                entry, contention = measure_operator(*point, target, scratch=Path(scratch))
                yield MeasuredOperator(entry=entry, contention=contention)

    def kernels(self, engine: EngineFile, inputs: np.ndarray) -> tuple[KernelShare, ...]:
        """See `Device`."""
        refuse_emulated()
        with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
            return profile_kernels(engine.file, engine.target, inputs, scratch=Path(scratch))

    def kernel_times(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[KernelTime, ...]]:
        """See `Device`."""
        refuse_emulated()
        with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
            return time_kernels(engines, inputs, scratch=Path(scratch))

    def dissect(self, engine: EngineFile, inputs: np.ndarray) -> EngineParts:
        """See `Device`."""
        refuse_emulated()
        return EngineParts(*cast(DissectingBackend, backend_of(engine.target)).dissect(engine.file, engine.target, inputs))


local = LocalDevice()
