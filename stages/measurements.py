"""What was measured, and on what."""

from typing import Literal

from profiles.source import Record
from stages.artifacts import Artifact, Latency


class Lane(Record):
    """One candidate of a race.

    Attributes:
        error: Relative standard error of the ratio of its median to the reference's.
    """

    latency: Latency
    error: float


class Race(Artifact):
    """Engines timed in turns with a reference on one device.

    Files: ``samples.safetensors``, raw nanoseconds.

    Attributes:
        lanes: The candidates, in the order given.
        contention: Wall time over CPU time; 1 on a quiet machine.
    """

    reference: Latency
    lanes: tuple[Lane, ...]
    contention: float


class Accuracy(Record):
    """Top-1 on a whole split with its Wilson 95 % interval; ratios 0-1.

    Attributes:
        measured_by: What ran the network: ``engine``, ``onnxruntime on the same ONNX file`` or ``torch``.
    """

    top1: float
    low: float
    high: float
    n: int
    measured_by: str


class Row(Record):
    """One line of the result table.

    Attributes:
        latency: None where the network was not run as an engine.
        size_bytes: Of the file that holds the network at this point.
    """

    name: Literal["dense", "pruned", "quantised", "engine"]
    accuracy: Accuracy
    latency: Latency | None
    size_bytes: int
    parameters: int
    macs: int


class Gate(Record):
    """A limit and what was found."""

    name: str
    limit: float
    found: float
    unit: str
    passed: bool
    note: str = ""

    @property
    def sentence(self) -> str:
        """What was found against the limit, in a few words."""
        verdict = "met" if self.passed else "MISSED"
        return f"{self.name}: {self.found:.4g} {self.unit}, limit {self.limit:.4g}: {verdict}" + (f" ({self.note})" if self.note else "")


class Measurement(Artifact):
    """The finished engine beside the dense network, and the verdict.

    Files: ``samples.safetensors`` where engines were timed.
    """

    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    test_images: int
    contention: float | None


class KernelShare(Record):
    """One kind of kernel of an engine.

    Attributes:
        op: The runtime's name of it.
        precision: What it computes in.
        count: Kernels of this kind in the engine.
        share: Of the time of all kernels, 0-1.
    """

    op: str
    precision: Literal["int8", "float"]
    count: int
    share: float
