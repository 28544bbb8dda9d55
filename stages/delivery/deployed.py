"""The manifest of a package that `bonsai.deploy` made from a network in hand: it has no recipe."""

from typing import Literal

from pydantic import Field

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Precision
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.packed_facts import PackagedInput, PackedFacts
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.networks.edits.records import Quantizers

DEPLOY: Literal["deploy"] = "deploy"


class ScoredRow(Record):
    """One network or engine that `evaluate` was called on.

    Attributes:
        what: ``dense engine``, ``torch`` for the network itself, or ``shipped engine``.
        score: What `evaluate` returned: its number, or the mean of its values.
        low: Lower end of the score's 95 % interval; None where `evaluate` returned one number.
        high: Upper end.
        samples: Number of values; None where it returned one number.
        latency: None for the torch network.
    """

    what: Literal["dense engine", "torch", "shipped engine"]
    precision: Precision
    score: float
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    latency: Latency | None = None
    size_bytes: int | None = None
    parameters: int
    macs: int


class NetworkFacts(Record):
    """What a network was.

    Attributes:
        name: Name of its class.
        structure: sha256 of its modules' code, their attributes and the sizes of its tensors.
        weights: sha256 of its parameters and buffers.
        quantizers: How it is quantised; None for a float network.
    """

    name: str
    structure: str
    weights: str
    quantizers: Quantizers | None = None


class Closeness(Record):
    """How far outputs lie from torch's on the samples.

    Attributes:
        output: Name of the output.
        mean: Mean absolute difference over the standard deviation of torch's outputs.
        largest: Largest absolute difference over the largest output.
    """

    output: str
    mean: float
    largest: float


class DeployedManifest(PackedFacts):
    """``manifest.json`` of a package that `bonsai.deploy` made.

    Attributes:
        inputs: What the engine takes, in its order; empty in packages of earlier versions, which have one, called `input`. Where there are several,
            `engine.image_shape` is the length of all of them together, as the golden samples hold them: flattened and joined.
        score: What `evaluate` measures, in words.
        higher_is_better: Whether a higher score is better.
        rows: What `evaluate` found.
        graph_parity: How ``model.onnx`` follows the torch network.
        engine_parity: How the engine follows it.
        samples: Number of samples that both were compared on.
        network: The network that was exported.
        reference: The dense network; None where none was given.
        notes: How score and latency were measured, one sentence each.
    """

    made_by: Literal["deploy"] = DEPLOY
    inputs: tuple[PackagedInput, ...] = ()
    score: str
    higher_is_better: bool
    rows: tuple[ScoredRow, ...] = Field(min_length=2)
    graph_parity: tuple[Closeness, ...]
    engine_parity: tuple[Closeness, ...]
    samples: int
    network: NetworkFacts
    reference: NetworkFacts | None
    timing: TimingConfig
    notes: tuple[str, ...]

    @property
    def shipped(self) -> ScoredRow:
        """The row of the engine."""
        return self.rows[-1]
