"""Stage `characterize`: the latency table of a network's operators on the target."""

import time
from pathlib import Path

from profiles.latency import Entry, LatencyTable, OperatorClass, TableMeta
from profiles.roofline import estimate_us
from profiles.schema import Target
from stages.artifacts import Artifact, DeviceInfo
from stages.backends.operator_timing import STATISTIC, measure_operator
from stages.backends.registry import backend_of
from stages.models.config import ModelConfig
from stages.models.registry import build_network
from stages.pruning.surgery import find_groups
from stages.selection.operators import Operator, list_operators
from stages.store import stage
from stages.training.progress import report

TABLE = "table.csv"


class TableArtifact(Artifact):
    """Files: ``table.csv``.

    Attributes:
        source: Whether the operators were ``measured`` or ``estimated``.
        contention: Highest wall time over CPU time; None where that says nothing.
    """

    source: str
    entries: int
    contention: float | None

    def load(self, target: Target) -> LatencyTable:
        """Read the table, which must be one of the target's precision, batch and threads."""
        return LatencyTable.load(self.folder / TABLE, expect={"precision": target.precision, "batch": target.batch, "threads": target.threads})


@stage(version=1, timed=True)
def characterize(
    out_dir: Path, model: ModelConfig, image_shape: tuple[int, int, int], num_classes: int, target: Target, info: DeviceInfo, step: int
) -> TableArtifact:
    """Measure every operator class of the network at its four corners, or estimate them where that cannot be done.

    Single operators are timed by ONNX Runtime alone; TensorRT's table is estimated, and calibrated where its GPU is here.

    On widths that are multiples of the step an operator's time is bilinear in input and output channels, so
    that {one step, full} x {one step, full} suffices.

    Args:
        out_dir: Where the table is written.
        model: The network.
        image_shape: (channels, height, width).
        num_classes: Number of logits.
        target: Device, runtime, precision, threads and batch.
        info: The machine; `present` says whether it is the target.
        step: Channel multiple.
    """
    network = build_network(model, image_shape, num_classes)
    operators = list_operators(network, find_groups(network, image_shape), image_shape)
    points = corner_points(operators, step)
    measured = info.present and backend_of(target).measures_operators
    entries, contentions = [], []
    for done, (operator, ci, co) in enumerate(points):
        if measured:
            entry, contention = measure_operator(operator, ci, co, target, scratch=out_dir)
            contentions += [contention] if contention is not None else []
        else:
            assert target.device.peak is not None  # the profile's schema asks for it
            estimate = estimate_us(operator, ci, co, peak=target.device.peak, precision=target.precision, batch=target.batch, step=step)
            entry = Entry(operator=operator, ci=ci, co=co, p10_us=estimate, p50_us=estimate, reps=0, kernels="roofline")
        entries.append(entry)
        if measured and (done + 1) % 10 == 0:
            report(f"characterize {info.device}", done=done + 1, total=len(points))
    highest = max(contentions) if contentions else None
    meta = TableMeta(
        source="measured" if measured else "estimated",
        device=info.device,
        runtime=info.runtime,
        runtime_version=info.runtime_version,
        precision=target.precision,
        batch=target.batch,
        threads=target.threads,
        step=step,
        clock="runtime profiler" if measured else "none",
        statistic=STATISTIC if measured else "roofline",
        date=time.strftime("%Y-%m-%d"),
        contention=highest,
    )
    LatencyTable(meta, entries).save(out_dir / TABLE)
    return TableArtifact(folder=out_dir, source=meta.source, entries=len(entries), contention=highest)


def corner_points(operators: tuple[Operator, ...], step: int) -> list[tuple[OperatorClass, int, int]]:
    """Return (class, input channels, output channels) for the corners of every operator class."""
    ends: dict[OperatorClass, tuple[set[int], set[int]]] = {}
    for operator in operators:
        ins, outs = ends.setdefault(operator.operator, (set(), set()))
        full = dict(operator.full_widths)
        for widths in ({group: min(step, width) for group, width in full.items()}, full):
            ci, co = operator.channels(widths)
            ins.add(ci)
            outs.add(co)
    points: list[tuple[OperatorClass, int, int]] = []
    for cls, (ins, outs) in ends.items():
        corners = {(c, c) for c in ins} if cls.depthwise else {(ci, co) for ci in (min(ins), max(ins)) for co in (min(outs), max(outs))}
        points += [(cls, ci, co) for ci, co in sorted(corners)]
    return points
