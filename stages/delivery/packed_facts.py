"""What every package says of its engine, whoever trained the network."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import HardwareProfile, Precision, Runtime
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.delivery.compatibility import Compatibility
from bonsai.stages.delivery.golden import GoldenSource
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.measurement.measurements import Gate
from bonsai.stages.store.lineage import Ancestor

SCHEMA: Literal[4] = 4
PLAIN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern for names that become file names. They cannot lead out of a folder."""


class PackagedEngine(Record):
    """The engine of a package.

    Attributes:
        file: Its name in the package.
        graph: Name of the ONNX file that it was built from.
        coverage: Counts that the runtime reports, such as INT8 and float convolutions.
        run_here: Whether it was run where it was built.
    """

    file: Annotated[str, Field(pattern=PLAIN)]
    graph: Annotated[str, Field(pattern=PLAIN)]
    runtime: Runtime
    precision: Precision
    dialect: Dialect
    image_shape: tuple[int, ...]
    coverage: dict[str, int]
    run_here: bool


class PackagedInput(Record):
    """An input of the engine.

    Attributes:
        name: Its name in the ONNX file.
        shape: Shape without the batch.
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=1)], ...]


class PackagedOutput(Record):
    """An output of the engine.

    Attributes:
        name: Its name in the ONNX file.
        shape: Shape without the batch.
        labelled: Whether it has one entry for each class, label or figure.
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    labelled: bool = False


class PackedFacts(Record):
    """The part of ``manifest.json`` that all packages have.

    Attributes:
        golden: Origin of the golden outputs.
        files: sha256 of every file but the manifest itself and ``SHA256SUMS``, by name.
        device: The machine that built the engine.
        tools: Versions that it was built with.
        outputs: What the engine gives, in its order; empty in packages of earlier versions, which have one output that their task names.
        warnings: Reasons why the verdict means little, one sentence each.
        lineage: The artifacts that the package was made from.
    """

    schema_version: Literal[4] = SCHEMA
    name: Annotated[str, Field(pattern=PLAIN)]
    engine: PackagedEngine
    compatibility: Compatibility
    golden: GoldenSource
    files: dict[str, str] = {}
    device: DeviceInfo
    tools: dict[str, str]
    profile: HardwareProfile
    outputs: tuple[PackagedOutput, ...] = ()
    gates: tuple[Gate, ...]
    warnings: tuple[str, ...] = ()
    lineage: tuple[Ancestor, ...]

    @model_validator(mode="after")
    def _one_runtime(self) -> "PackedFacts":
        if self.engine.runtime != self.profile.target.runtime:
            raise ValueError(f"the engine is one of {self.engine.runtime}, the profile asks for {self.profile.target.runtime}")
        return self
