"""Defines `Device`: a machine that builds, times and runs engines.

    device = device_of(target)
    built = device.build(folder / "model.onnx", folder, target, image_shape)
    outputs = device.run(EngineFile(file=folder / built.file, target=target), [images])

A device returns raw outputs and raw times; the host judges them (`stages/measurement/judging.py`). Arguments and results are records, NumPy arrays and
files of the host, so a device may be another machine: it then copies the graph, the engines and the target's `timing_cache` there, and what it built back.
`devices.py` has the table of devices, `local_device.py` is the machine that Bonsai runs on, `remote/` one that has an address.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from bonsai.profiles.latency import Entry
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Target
from bonsai.stages.backends.checkup import Checkup
from bonsai.stages.backends.engine import DeviceInfo, EngineFile
from bonsai.stages.backends.machine import Machine
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.backends.timing_records import Alone, Conditions
from bonsai.stages.measurement.measurements import KernelShare

STATISTIC = "mean of the middle half"
"""The statistic of an operator's runs that a latency table holds."""


class Built(Record):
    """The result of a build.

    Attributes:
        file: Name of the engine file in the folder.
        coverage: Counts such as INT8 and float convolutions.
        timing_cache: sha256 of the file of kernel timings beside the engine; empty if there is none.
    """

    file: str
    coverage: dict[str, int]
    timing_cache: str = ""


class TimingProtocol(Record):
    """How engines are timed in turns, in a process of their own.

    Attributes:
        timing: Runs, blocks, warm-up and repetitions.
        clock: Clock of the percentile, ``thread_cpu`` or ``wall``.
        percentile: If the error of this percentile is too large, the machine was not steady, and the engines are timed again.
        limit: Only for two engines: largest ratio of the second's median to the first's for which the exact figure matters. A device may end the timing as
            soon as the ratio is certain to be above. None for all runs.
        once: Time them once. Otherwise they are timed again until the machine was steady.
    """

    timing: TimingConfig
    clock: str
    percentile: int
    limit: float | None = None
    once: bool = False


class Timing(NamedTuple):
    """The result of a timing.

    Attributes:
        samples: By engine, (2, runs) int64 nanoseconds: thread CPU time and wall time.
        turns: How many turns each engine got.
        conditions: Condition of the device before and after; None where the device does not tell.
        alone: Start, memory and energy of an engine that was timed alone; None where several took turns.
    """

    samples: dict[str, np.ndarray]
    turns: int
    conditions: Conditions | None = None
    alone: Alone | None = None


class OperatorPoint(NamedTuple):
    """An operator at some widths.

    Attributes:
        ci: Input channels.
        co: Output channels.
    """

    operator: OperatorClass
    ci: int
    co: int


class MeasuredOperator(Record):
    """An operator that was timed.

    Attributes:
        entry: Entry of the latency table.
        contention: Wall time over CPU time of its runs: 1 on a quiet machine. None with several threads.
    """

    entry: Entry
    contention: float | None


class KernelTime(Record):
    """One kernel of an engine under the runtime's profiler, which slows every kernel down by about a microsecond.

    Attributes:
        name: The runtime's name of the node, which for ONNX Runtime is that in the engine file.
        op: The runtime's name of its kind.
        precision: Precision of its computation.
        microseconds: Mean of the middle half of its runs.
    """

    name: str
    op: str
    precision: Literal["int8", "float"]
    microseconds: float


class EngineParts(NamedTuple):
    """The parts of an engine's run, and its layers.

    Attributes:
        milliseconds: Times of copying in, computing and copying out of one batch, (runs, 3) float32.
        layers: JSON in which the runtime describes the engine's layers.
    """

    milliseconds: np.ndarray
    layers: str


class Device(Protocol):
    """A machine that has the runtime of a target."""

    def describe(self, target: Target) -> DeviceInfo:
        """Check that engines for a target can be built on this device, and describe it.

        The description enters the keys of artifacts. It holds no address: a device that is reached in another way is still the same one.

        Raises:
            ConfigError: The runtime cannot do what the target asks.
            DeviceUnavailable: The runtime or its execution provider is missing, has a version that the profile does not allow, or needs the device here.
        """
        ...

    def machine(self) -> Machine:
        """Describe the machine, whatever the target is: what a package's requirements are compared with."""
        ...

    def check_up(self) -> Checkup:
        """Return what there is to tell of the device now: hardware, condition, memory, versions, and how long a question to it takes."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Keep other timings off this device while a block runs; wait for those under way, and say so. Who times on a device holds it."""
        ...

    def verify(self, package: Path) -> list[str]:
        """Check a package on this device, as `verify_package` does, and return what was checked, line by line.

        Raises:
            VerificationError: The first thing that differs.
            DeviceUnavailable: The engine's runtime is not installed, or the engine cannot be run.
        """
        ...

    def build(self, graph: Path, folder: Path, target: Target, image_shape: tuple[int, ...]) -> Built:
        """Build an engine from an ONNX file, and write it into a folder.

        Args:
            graph: The ONNX file.
            folder: Receives the engine, and the file of kernel timings if the runtime writes one.
            target: Runtime, precision, batch and threads.
            image_shape: (channels, height, width).

        Raises:
            BuildError: The runtime refuses the graph, crashes or hangs.
            DeviceUnavailable: The runtime needs hardware that the device does not have.
        """
        ...

    def run(self, engine: EngineFile, batches: Iterable[np.ndarray], *, untried: bool = False) -> Iterator[np.ndarray]:
        """Load an engine once and return the raw outputs of every batch, in order.

        Args:
            engine: The engine.
            batches: Batches of images, (n, c, h, w) float32 each; n may differ between them.
            untried: This file has never been run. It is run in a separate process, so that a crash or a hang becomes a `BuildError`.

        Raises:
            BuildError: The engine cannot be loaded, or an untried one crashes or hangs.
        """
        ...

    def open(self, engine: EngineFile) -> Run:
        """Load an engine once, and return what runs it on batches of any number of images, as often as it is asked.

        Raises:
            BuildError: The engine cannot be loaded.
        """
        ...

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        """Time engines in turns. A timing during which the device was slowed down is repeated, a few times at most (`condition.py`).

        Args:
            engines: Engines by name, all for the same batch size.
            inputs: One batch for each engine, (batch, c, h, w) float32.
            protocol: How to time them.

        Raises:
            BuildError: An engine cannot be loaded.
            TimingFailed: The timing's own process crashed, was ended, or could not load an engine.
        """
        ...

    def operators(self, points: Sequence[OperatorPoint], target: Target) -> Iterator[MeasuredOperator]:
        """Time operators one by one, and yield each as soon as it is timed. The runtime must be one that `measures_operators`."""
        ...

    def kernels(self, engine: EngineFile, inputs: np.ndarray) -> tuple[KernelShare, ...]:
        """Return the share of an engine's time that each kind of kernel takes, the largest first. The runtime must be one that `profiles_kernels`."""
        ...

    def kernel_times(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[KernelTime, ...]]:
        """Run engines in turns under the runtime's profiler; return the kernels of each, in order. The runtime must be one that `profiles_kernels`.

        Args:
            engines: Engines by name.
            inputs: One batch for each engine, (batch, c, h, w) float32.

        Raises:
            BuildError: An engine cannot be loaded.
        """
        ...

    def dissect(self, engine: EngineFile, inputs: np.ndarray) -> EngineParts:
        """Time copies and computation apart, and describe the layers. The runtime must be one that `dissects`."""
        ...
