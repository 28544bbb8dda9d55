"""What a stage leaves on disk, and how everything that enters a stage is fingerprinted."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bonsai.profiles.schema import Precision
from bonsai.profiles.source import Record
from bonsai.stages.models.config import ModelConfig

Dialect = Literal["float", "ort", "trt"]
"""Form of an ONNX file: without Q/DQ nodes, or with those of ONNX Runtime or of TensorRT."""
FloatType = Literal["fp32", "fp16"]
"""Number format of what is not quantised."""
Weights = Literal["ptq", "qat"]
"""Of a quantised network: calibrated alone, or fine-tuned too."""
Quantised = Literal["ptq", "qat", "mixed"]
"""How a network was quantised: with the weights of either, or of one of them with more layers in float than the recipe names."""
SETTLED_NS = 100_000_000
"""A hash is remembered once the file's times are older than this: two writes within one tick of the file system's clock leave the same times."""
_hashed: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}
"""By device and inode: size and times of the file when it was hashed, and its sha256."""


MOMENTS = "moments"
"""Folder of a segment's moments: below its stage's `out_dir`, and then in the store, as ``moments/<key of the segment>``."""


class Artifact(Record):
    """A folder that a stage wrote. The record travels; the bytes stay in `folder`.

    Attributes:
        folder: Where the bytes lie; not part of the identity, so that a store can be moved.
        digest: sha256 of the record and of every file; the identity.
        key: Content address of the inputs: the artifact's name in the store.
    """

    folder: Path = Field(exclude=True)
    digest: str = ""
    key: str = ""


class Dataset(Artifact):
    """Images and labels, split once and for all.

    Files: ``{train,validation,test}.safetensors`` with `images` (n, c, h, w) uint8 and `labels` (n,) int64.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sizes: dict[str, int]
    licence: str


class History(Record):
    """One epoch or segment of training, as shown to people."""

    step: int
    epoch: float
    phase: Literal["trunk", "branch", "qat"]
    loss: float
    validation_top1: float


class QuantizerState(Record):
    """How a quantised network is rebuilt: the scales themselves are among the weights.

    Attributes:
        kept_float: Names of the layers that are left in float.
    """

    dialect: Dialect
    weight_bits: int
    kept_float: tuple[str, ...] = ()


class Sensitivity(Record):
    """What one layer costs as INT8: noise of the logits, the mean squared error against the float network's over their own mean square.

    Attributes:
        alone: Noise that is added where this layer alone is quantised.
        gain: Noise that is taken off the quantised network where this layer alone is in float.
    """

    layer: str
    alone: float
    gain: float

    @property
    def noise(self) -> float:
        """The larger of the two, by which layers are ranked."""
        return max(self.alone, self.gain)


class Quantization(Record):
    """Which quantised network was kept, and why.

    Attributes:
        kept: The calibrated network, the fine-tuned one, or one of them with more layers in float than the recipe names. Its
            accuracy is ``validation_top1_<kept>`` of the metrics.
        weights: Which of the two it has the weights and scales of.
        max_drop: Validation top-1 that the recipe lets quantisation cost.
        searched: The layers that the search for the fewest left in float, the most sensitive first.
        sensitivities: What every layer costs, the most sensitive first; empty without a search.
        left_float: What else computes in float, with what it does in brackets: the quantiser takes none of its kind.
    """

    kept: Quantised
    weights: Weights
    max_drop: float
    searched: tuple[str, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    left_float: tuple[str, ...] = ()


class Checkpoint(Artifact):
    """A network in training: weights as safetensors, structure as JSON.

    Files: ``weights.safetensors``; on a trunk ``scores.safetensors`` (one vector per criterion and group), where the training averages its
    weights ``average.safetensors``, and beside it an artifact `Moments`; after a cut ``training.safetensors`` (moments, average, loss scale).

    Attributes:
        kept: Pruning history: channels kept by group; empty for a dense network.
        quantizers: Set once the network holds quantisers.
        quantization: Set where `quantizers` are: how they came about.
        step: Optimizer steps done in the learning-rate cycle.
    """

    model: ModelConfig
    num_classes: int
    image_shape: tuple[int, int, int]
    kept: dict[str, tuple[int, ...]] = {}
    quantizers: QuantizerState | None = None
    quantization: Quantization | None = None
    step: int = 0
    history: tuple[History, ...] = ()
    metrics: dict[str, float] = {}

    def successor(self, folder: Path, *, metrics: Mapping[str, float] | None = None, **changes: object) -> "Checkpoint":
        """Return the record of the same network after another stage, which wrote `folder`."""
        return self.model_copy(update={"folder": folder, "digest": "", "key": "", "metrics": {**self.metrics, **(metrics or {})}, **changes})


class Moments(Artifact):
    """What only a training that goes on needs of a segment of the trunk. It has the segment's key, and can be made again while the segment is kept.

    Files: ``training.safetensors`` (the optimizer's moments, loss scale), ``statistics.safetensors`` (running averages of the scores), and
    ``penalty.safetensors`` where there is a regulariser.
    """


class OnnxGraph(Artifact):
    """An ONNX file ``model.onnx`` with input `input` and output `logits`, dynamic batch.

    Attributes:
        dialect: The runtime family whose Q/DQ form the file holds; ``float`` has none.
        float_type: Of what is not quantised; input and logits are FP32 whatever it is.
        audit: Counts of nodes.
        not_simplified: Why the simplified file was rejected and the exporter's kept; empty where it was not.
        parity: Agreement with the torch network on real images.
    """

    dialect: Dialect
    float_type: FloatType
    opset: int
    image_shape: tuple[int, int, int]
    audit: dict[str, int]
    not_simplified: str = ""
    parity: dict[str, float]
    parameters: int
    macs: int


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
        precision: What the profile calls it; an INT8 engine's other layers are in the graph's float type.
        coverage: What the runtime made of the graph, such as INT8 and float convolutions.
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


class Latency(Record):
    """Latency of one engine, in milliseconds.

    Attributes:
        clock: Of `p50`, `mean` and `cv`: ``thread_cpu`` or ``wall``.
        p50: Of engines that were timed in turns with the dense one over the turns in which the machine was calm (`stages/backends/calm.py`).
        p90: By the wall clock, as are the other percentiles above the median: a thread's CPU time leaves out what the thread waits for.
        p99: None below 1,000 samples.
        cv: Standard deviation over mean.
        source: ``measured`` on the engine, or ``estimated``.
    """

    source: Literal["measured", "estimated"]
    clock: str
    p50: float
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None
    n: int = 0
    cv: float | None = None
    wall_p50: float | None = None

    def at(self, percentile: int) -> float:
        """Return p50, p90 or p95; an estimate has p50 alone, which stands for all."""
        found = getattr(self, f"p{percentile}")
        return float(self.p50 if found is None else found)

    def with_median(self, calm: "Latency") -> "Latency":
        """Return this latency with the median of the calm turns; the tail and the spread are of all runs."""
        return self.model_copy(update={"p50": calm.p50, "wall_p50": calm.wall_p50})

    @property
    def stable(self) -> bool:
        """Whether the samples spread by no more than 2.5 %; an estimate has no spread."""
        return self.cv is None or self.cv <= 0.025


def fingerprint(value: Any) -> str:
    """Return the identity of a stage's input.

    Raises:
        TypeError: The value has no identity of its own, such as a path or a dict.
    """
    if isinstance(value, Artifact):
        return value.digest
    if isinstance(value, Record):
        return sha256_text(value.identity())
    if value is None or isinstance(value, str | int | float | bool):
        return sha256_text(json.dumps(value))
    if isinstance(value, tuple):
        return sha256_text(json.dumps([fingerprint(item) for item in value]))
    raise TypeError(f"a {type(value).__name__} cannot enter a stage: pass a record, an artifact, a number or a text")


def sha256_text(text: str) -> str:
    """Return the hexadecimal sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(file: Path) -> str:
    """Return the hexadecimal sha256 of a file; a file that has not changed since this process last hashed it is not read again."""
    with file.open("rb") as stream:
        seen = os.fstat(stream.fileno())
        state = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        known = _hashed.get((seen.st_dev, seen.st_ino))
        if known is not None and known[0] == state:
            return known[1]
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > SETTLED_NS:
        _hashed[seen.st_dev, seen.st_ino] = (state, digest)
    return digest
