"""An engine, and the machine that it was built for."""

from pathlib import Path

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Precision, Target
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.store.artifact import Artifact


class DeviceInfo(Record):
    """The machine and library that a figure was measured with.

    Attributes:
        driver: Version of the GPU's driver; None for a CPU, and where the GPU is not here.
    """

    device: str
    isa: tuple[str, ...]
    cores: int
    system: str
    runtime: str
    runtime_version: str
    driver: str | None = None
    present: bool


class EngineFile(Record):
    """An engine file and the target to run it for: what a device is asked to run.

    Attributes:
        file: File of the engine.
        target: Batch, threads and runtime.
    """

    file: Path
    target: Target


class Engine(Artifact):
    """A file that the runtime executes, beside the ``model.onnx`` that it was built from.

    Attributes:
        file: Name of the engine file in the folder.
        precision: Precision in the profile; an INT8 engine's other layers are in the graph's float type.
        coverage: Counts that the runtime reports, such as INT8 and float convolutions.
        runnable: Whether the engine can be run on this machine.
        timing_cache: sha256 of the file of kernel timings that the build left beside the engine; empty where it left none.
        not_simplified: As of the graph that it was built from.
        fused: As of the graph.
    """

    file: str
    runtime: str
    precision: Precision
    dialect: Dialect
    info: DeviceInfo
    image_shape: tuple[int, ...]
    parameters: int
    macs: int
    coverage: dict[str, int]
    runnable: bool
    timing_cache: str = ""
    not_simplified: str = ""
    fused: bool = False

    def for_target(self, target: Target) -> EngineFile:
        """Return this engine as a device takes it, to run with a target's threads and batch."""
        return EngineFile(file=self.folder / self.file, target=target)
