"""An engine, and the machine that it was built for."""

from bonsai.profiles.schema import Precision
from bonsai.profiles.source import Record
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


class Engine(Artifact):
    """A file that the runtime executes, beside the ``model.onnx`` that it was built from.

    Attributes:
        file: Name of the engine file in the folder.
        precision: Precision in the profile; an INT8 engine's other layers are in the graph's float type.
        coverage: Counts that the runtime reports, such as INT8 and float convolutions.
        runnable: Whether the engine can be run on this machine.
        timing_cache: sha256 of the file of kernel timings that the build left beside the engine; empty where it left none.
        not_simplified: As of the graph that it was built from.
    """

    file: str
    runtime: str
    precision: Precision
    dialect: Dialect
    info: DeviceInfo
    image_shape: tuple[int, int, int]
    parameters: int
    macs: int
    coverage: dict[str, int]
    runnable: bool
    timing_cache: str = ""
    not_simplified: str = ""
