"""What was measured, and on what."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Precision
from bonsai.stages.backends.timing_records import Conditions
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.quantization.records import Quantised
from bonsai.stages.quantization.summary import NAMES
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.naming import FigureRecord
from bonsai.stages.tasks.registry import metric_named

Part = Literal["validation", "test"]
"""Part of the data. Engines are chosen on the validation part; the one that ships is judged on the test part."""
Verdict = Literal["met", "missed", "undecided"]
NO_REFERENCE = "no dense reference was trained, so no accuracy drop is known"
"""Printed in place of a figure of the reference."""
GIVEN_REFERENCE = "The dense reference is the network with the given weights, before any training here."
VERDICTS: dict[Verdict, str] = {"met": "met", "missed": "MISSED", "undecided": "UNDECIDED"}
"""How tables and sentences write a verdict."""


class Candidate(Record):
    """An engine that was timed beside a reference.

    Attributes:
        error: Relative standard error of the ratio of its percentile, which the budget names, to the reference's.
    """

    latency: Latency
    error: float


class Benchmark(Artifact):
    """Engines timed in turns with a reference on one device.

    Files: ``samples.safetensors``, raw nanoseconds.

    Attributes:
        candidates: Results in the order of the engines.
        contention: Wall time over CPU time; 1 on a quiet machine.
        conditions: Condition of the device meanwhile; None where it does not tell.
    """

    reference: Latency
    candidates: tuple[Candidate, ...]
    contention: float
    conditions: Conditions | None = None


class ProcessFigures(Record):
    """What one process found.

    The figure is the ratio to the dense engine where the budget is a fraction of it, else milliseconds. A process that was set aside, since
    the machine was calm for too few of its turns, has none.

    Attributes:
        figure: The figure of the percentile that is judged.
        error: Its relative standard error within the process.
        milliseconds: The engine's.
        reference_ms: The dense engine's; None where it was not timed.
        calm: Share of the turns, 0-1, that the figures are from (`stages/measurement/calm.py`).
    """

    figure: float | None
    error: float
    milliseconds: float | None
    reference_ms: float | None
    calm: float


class Fresh(Record):
    """An engine timed in processes of their own, which nobody chose it by.

    Attributes:
        percentile: That is judged.
        engine: Over all runs of all processes.
        reference: Latency of the dense engine, timed in turns; None if that engine is not here.
        processes: Results by process, in order.
        interval: 95 % interval of the figure.
        contention: Wall time over CPU time; 1 on a quiet machine.
        tail: 95 % interval of the engine's p99 in milliseconds; None where no budget limits it, or too few runs were made.
        conditions: Condition of the device by process, in order; empty where it does not tell.
    """

    percentile: int
    engine: Latency
    reference: Latency | None
    processes: tuple[ProcessFigures, ...]
    interval: Interval
    contention: float
    tail: Interval | None = None
    conditions: tuple[Conditions, ...] = ()

    @property
    def sentence(self) -> str:
        """How it was timed, in one line."""
        calm = [process for process in self.processes if process.figure is not None]
        aside = len(self.processes) - len(calm)
        share = sum(process.calm for process in calm) / max(len(calm), 1)
        parts = [f"timed again in {len(self.processes)} new processes after it was chosen; results {self._found}"]
        if share < 1:
            parts.append(f"only {share:.0%} of the turns count: those in which the dense engine ran at its usual speed")
        if aside:
            parts.append(f"{aside} of the processes do not count, because the machine was too busy")
        return "; ".join(parts)

    @property
    def _found(self) -> str:
        return ", ".join("-" if process.figure is None else f"{process.figure:.4g}" for process in self.processes)


class AloneRun(Artifact):
    """An engine that was run alone in one process; no file.

    Attributes:
        footprint: Its start, memory and energy; None where the device tells nothing of an engine that is alone.
    """

    footprint: Footprint | None


class FreshTiming(Artifact):
    """The finished engine timed again, after it was chosen.

    Files: ``samples-1.safetensors`` and so on, raw nanoseconds of each process.

    Attributes:
        fresh: The figures.
        repetition: 1 for the first timing of this engine, one more each time that it is measured again.
        footprint: Start, memory and energy of the engine; None where the device tells nothing of an engine that is alone.
    """

    fresh: Fresh
    repetition: int
    footprint: Footprint | None = None

    def figures(self) -> str:
        """Return what was found, in a few words."""
        tail = f", p99 {self.fresh.tail.found:.3f} ms" if self.fresh.tail else ""
        told = self.footprint
        memory = f", memory {told.memory_mb:.4g} MB" if told is not None and told.memory_mb is not None else ""
        energy = f", energy {told.energy_mj:.4g} mJ" if told is not None and told.energy_mj is not None else ""
        start = f", cold start {told.cold_s:.3g} s" if told is not None else ""
        return f"p{self.fresh.percentile} {self.fresh.engine.at(self.fresh.percentile):.3f} ms{tail}{memory}{energy}{start}"


class Accuracy(FigureRecord):
    """The task's metric on a whole part of the data with its 95 % interval. It is stored under the metric's name.

    Attributes:
        metric: Name of the metric.
        measured_by: The program that ran the network: ``engine``, ``onnxruntime on the same ONNX file`` or ``torch``.
        part: The images that it was measured on.
    """

    FORMS: ClassVar = {"value": "{}"}

    value: float
    low: float
    high: float
    n: int
    measured_by: str
    part: Part = "test"


class Row(Record):
    """One line of the result table.

    Attributes:
        network: ``simulated`` is the pruned network with fake quantisers, run by torch.
        quantised: How the simulated network was: calibrated, fine-tuned, or with more layers in float.
        shipped: Whether it is the engine in the package.
        accuracy: Accuracy on the test images for the shipped and the dense engine, the only ones that run them; on the validation images for all others.
            None for a dense engine that is untrained, because there is no reference.
        validation: Accuracy on the validation images, if `accuracy` is on the test images.
        latency: None if the network was not run as an engine.
        size_bytes: Size of the file with the network.
        fused: Whether the network was trained in branches that are fused.
        footprint: Start, memory and energy, where the engine was run alone: of the shipped one, and of every candidate where the budget limits them.
    """

    network: Literal["dense", "pruned", "simulated"]
    precision: Precision
    quantised: Quantised | None = None
    shipped: bool = False
    accuracy: Accuracy | None
    validation: Accuracy | None = None
    latency: Latency | None
    size_bytes: int
    parameters: int
    macs: int
    fused: bool = False
    footprint: Footprint | None = None

    @property
    def label(self) -> str:
        """Name of the row in the table."""
        how = f" {NAMES[self.quantised]}" if self.quantised else "" if self.accuracy is not None else " (untrained)"
        return f"{self.network}{' fused' if self.fused else ''} {self.precision}{how}" + (" (shipped)" if self.shipped else "")

    @property
    def judged(self) -> Accuracy:
        """The accuracy of a row that has one: every row but that of an untrained dense engine."""
        assert self.accuracy is not None
        return self.accuracy


def has_reference(rows: Sequence[Row]) -> bool:
    """Return whether accuracy was compared with a dense network; an untrained one is only timed."""
    return all(row.accuracy is not None for row in rows if row.network == "dense")


class Gate(Record):
    """A limit and what was found.

    Attributes:
        found: The figure that is judged.
        verdict: ``undecided`` where the interval of the figure holds the limit.
        low: Lower end of its 95 % interval; None where it has none.
        high: Upper end.
    """

    name: str
    limit: float
    found: float
    unit: str
    verdict: Verdict
    note: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the limit is met without a doubt."""
        return self.verdict == "met"

    @property
    def sentence(self) -> str:
        """The figure, its limit and the verdict, in one line."""
        found = f"{self.found:.4g}" + (f" ({self.interval})" if self.interval else "")
        return f"{self.name}: {found} {self.unit}, limit {self.limit:.4g}: {VERDICTS[self.verdict]}" + (f" ({self.note})" if self.note else "")

    @property
    def interval(self) -> str:
        """The 95 % interval, in a few characters; empty where there is none."""
        return "" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"


def unmet(gates: Sequence[Gate]) -> str:
    """Return which gates are not met, and whether they are missed or undecided; an empty text where all are met."""
    named: dict[Verdict, list[str]] = {verdict: [gate.name for gate in gates if gate.verdict == verdict] for verdict in VERDICTS if verdict != "met"}
    return "; ".join(f"{', '.join(names)} {VERDICTS[verdict]}" for verdict, names in named.items() if names)


class KernelShare(Record):
    """One kind of kernel of an engine.

    Attributes:
        op: The runtime's name of it.
        precision: Precision of its computation.
        count: Kernels of this kind in the engine.
        share: Fraction of the time of all kernels, 0-1.
    """

    op: str
    precision: Literal["int8", "float"]
    count: int
    share: float


class DeviceTimes(Record):
    """Medians of the parts of an inference by the device's own clock, in milliseconds.

    Attributes:
        copy_in_ms: Images from main memory to the device.
        compute_ms: From the end of that copy to the beginning of the next, so with what starting the engine takes.
        copy_out_ms: Outputs to main memory.
        flags: How it was run: what other tools set otherwise.
    """

    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float
    n: int
    flags: str = "CUDA events on one stream; no CUDA graph, no spin-wait, pageable host memory, nothing overlapped"

    @property
    def sentence(self) -> str:
        """The parts, in a few words."""
        return f"copy in {self.copy_in_ms:.3f}, compute {self.compute_ms:.3f}, copy out {self.copy_out_ms:.3f} ms (medians of {self.n}; {self.flags})"


class Measurement(Artifact):
    """The finished engine beside the dense network, and the verdict.

    Files of `measure`: ``samples.safetensors`` where engines were timed, and ``samples-point-1.safetensors`` and so on at the points;
    ``parts.safetensors``, milliseconds of `device` run by run, and ``layers.json``, what the runtime tells of the shipped engine's layers, where the
    runtime tells them. Of `assess`: ``test_results.safetensors``, what the dense and the shipped engine took every test image for.

    Attributes:
        gates: Gates of the shipped engine; latency comes first. In the result of `measure`, the accuracy gates are forecasts from the validation images.
        shipped: Precision of the engine that ships.
        reason: Why that precision ships.
        kernels: Kernels of the shipped engine with their share of the run time; empty if they cannot be profiled.
        dense_kernels: Kernels of the dense engine.
        device: Parts of the shipped engine's inference, if the runtime reports them.
        conditions: Condition of the device while it timed the engines.
        points: The shipped engine at each of the profile's points.
        warnings: Reasons why a verdict means little, one sentence each.
        test_digest: sha256 of the test part; empty before `assess`.
    """

    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    shipped: Precision
    reason: str
    kernels: tuple[KernelShare, ...]
    dense_kernels: tuple[KernelShare, ...]
    device: DeviceTimes | None = None
    contention: float | None
    conditions: Conditions | None = None
    points: tuple[AtPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    test_digest: str = ""

    @property
    def shipped_row(self) -> Row:
        """The line of the engine that is shipped."""
        return next(row for row in self.rows if row.shipped)

    def figures(self) -> str:
        """Return what is shipped, how accurate and how fast it is, in a few words."""
        row, accuracy = self.shipped_row, self.shipped_row.judged
        metric = metric_named(accuracy.metric)
        latency = f", p50 {row.latency.p50:.3f} ms {row.latency.source}" if row.latency else ""
        reference = "" if has_reference(self.rows) else ", no reference"
        return f"{row.precision} shipped, {accuracy.part} {metric.label} {metric.written(accuracy.value)}{reference}{latency}"


class Against(Record):
    """The engine that ships beside an earlier package's.

    Attributes:
        name: Name of the earlier package.
        engine_sha256: Hash of its engine.
        accuracy: Accuracy of the earlier engine on the new test images.
        drop: Drop of the metric from the earlier engine to the new one on the same test images, with both ends of its interval.
        new: Latency of the new engine, timed in turns with the earlier one; None where they were not timed.
        earlier: The same for the earlier engine.
        not_timed: Why not.
    """

    name: str
    engine_sha256: str
    accuracy: Accuracy
    drop: tuple[float, float, float]
    new: Latency | None
    earlier: Latency | None
    not_timed: str

    def sentence(self, metric: Metric) -> str:
        """Return what was found, in a sentence."""
        (drop, low, high), reached = self.drop, metric.written(self.accuracy.value)
        accuracy = (
            f"Against {self.name}: {metric.label} {reached} on the same {self.accuracy.n} test images, {self.accuracy.measured_by}; "
            f"drop {drop:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
        )
        if self.new is None or self.earlier is None:
            return f"{accuracy}. Not timed: {self.not_timed}."
        return f"{accuracy}; p50 {self.new.p50:.3f} ms against {self.earlier.p50:.3f} ms, timed in turns."


class Challenge(Artifact):
    """Result of the comparison with an earlier package.

    Files: ``samples.safetensors``, raw nanoseconds, where both engines were timed.

    Attributes:
        gates: Limits of the profile's `against`.
    """

    against: Against
    gates: tuple[Gate, ...]
