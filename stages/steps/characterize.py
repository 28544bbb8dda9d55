"""Stage `characterize`: the latency table of a network's operators on the target."""

import math
import statistics
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from torch import nn

from bonsai.profiles.latency import Entry, LatencyTable, TableMeta
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.roofline import estimate_us
from bonsai.profiles.schema import Target
from bonsai.profiles.shared_tables import conditions, describe_origin
from bonsai.stages.backends.device import STATISTIC, MeasuredOperator, OperatorPoint
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.fused_groups import deployed_form
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.limits import width_step
from bonsai.stages.quantization.keeping import layers_to_keep
from bonsai.stages.selection.coverage import at_precision, left_in_float
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.store.artifact import Artifact, sha256_text
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.store.whole_files import write_whole
from bonsai.stages.training.progress import report

TABLE = "table.csv"


class TableArtifact(Artifact):
    """Files: ``table.csv``.

    Attributes:
        source: Whether the operators were ``measured``, ``estimated``, or ``measured elsewhere`` and where.
        contention: Highest wall time over CPU time; None where that says nothing.
    """

    source: str
    entries: int
    contention: float | None

    def load(self, target: Target) -> LatencyTable:
        """Read the table, which must be one of the target's precision, batch and threads."""
        return LatencyTable.load(self.folder / TABLE, expect=conditions(target))


def figures_of(table: TableArtifact) -> str:
    """Return where the table is from, in a few words."""
    return table.source


@stage(version=9, timed=True, figures=figures_of)
def characterize(
    out_dir: Path,
    model: ModelConfig,
    image_shape: tuple[int, ...],
    num_classes: int,
    target: Target,
    info: DeviceInfo,
    step: int,
    brought: str | None,
    keep_float: tuple[str, ...] = (),
) -> TableArtifact:
    """Measure every operator class of the network on a grid of its channels, or estimate it where that cannot be done.

    Beside INT8, what stays in float is measured, or estimated, in the runtime's float format.

    Single operators are timed by ONNX Runtime and OpenVINO; TensorRT's table is estimated, and fitted to whole networks where its GPU is here.

    On widths that are multiples of the step an operator's time is near bilinear in input and output channels: {one step, half,
    full} on both sides suffice (`benchmarks/table.py`; INT8 needs the half). A killed measurement goes on after its last operator.

    Args:
        out_dir: Folder for the table.
        model: The network.
        image_shape: (channels, height, width).
        num_classes: Number of classes.
        target: Device, runtime, precision, threads and batch.
        info: The machine; `present` says whether it is the target.
        step: Channel multiple.
        brought: Text of a table that was measured elsewhere, with its origin; it is checked and taken as it is.
        keep_float: Globs over the layers that the recipe leaves in float; of an INT8 target.

    Raises:
        ConfigError: The table brought was measured under other conditions, or lacks an operator.
    """
    network, groups, operators = _dense(model.identity(), model.model_dump_json(), image_shape, num_classes)
    in_float = left_in_float(operators, layers_to_keep(network, keep_float, image_shape))
    operators = at_precision(operators, target.precision, in_float, runtime_of(target).float_beside_int8)
    if brought is not None:
        (out_dir / TABLE).write_text(brought, encoding="utf-8", newline="")
        table = LatencyTable.load(out_dir / TABLE, expect=conditions(target))
        for operator in operators:
            table.lookup_ms(operator.operator, *operator.channels(dict(operator.full_widths)))
        return TableArtifact(folder=out_dir, source=describe_origin(table), entries=len(table.entries), contention=table.meta.contention)
    points = grid_points(operators, groups, step)
    measured = info.present and runtime_of(target).measures_operators
    contention = None
    if measured:
        entries, contention = _measure(points, target, info, out_dir)
    else:
        assert target.device.peak is not None  # the profile's schema asks for it
        estimates = [estimate_us(*point, peak=target.device.peak, precision=target.precision, batch=target.batch, step=step) for point in points]
        entries = [Entry(operator=o, ci=ci, co=co, p10_us=us, p50_us=us, reps=0, kernels="roofline") for (o, ci, co), us in zip(points, estimates, strict=True)]
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
        contention=contention,
        spread=statistics.median(entry.p50_us / max(entry.p10_us, 0.5) for entry in entries) if measured else None,
    )
    LatencyTable(meta, entries).save(out_dir / TABLE)
    return TableArtifact(folder=out_dir, source=meta.source, entries=len(entries), contention=contention)


@lru_cache(maxsize=1)
def _dense(identity: str, model: str, image_shape: tuple[int, ...], num_classes: int) -> tuple[nn.Module, tuple[Group, ...], tuple[Operator, ...]]:
    """Return the dense network, fused, its groups and its operators; kept, since a target has a table per precision."""
    network = build_network(ModelConfig.model_validate_json(model), image_shape, num_classes)
    deployed = deployed_form(network, find_groups(network, image_shape), image_shape)
    return deployed.network, deployed.groups, list_operators(deployed.network, deployed.groups, image_shape)


def _measure(points: list[OperatorPoint], target: Target, info: DeviceInfo, folder: Path) -> tuple[list[Entry], float | None]:
    """Time the points that an earlier, killed run has not, and return all entries and the highest contention."""
    resume = folder / RESUME
    resume.mkdir(exist_ok=True)
    log = resume / "entries.jsonl"
    done = _read_points(log)
    for measured in device_of(target).operators(points[len(done) :], target):
        done.append(measured)
        write_whole(log, "".join(_line(point) for point in done))  # a kill leaves whole lines
        if len(done) % 10 == 0 or len(done) == len(points):
            report(f"characterize {info.device}", done=len(done), total=len(points))
    contentions = [point.contention for point in done if point.contention is not None]
    return [point.entry for point in done], max(contentions, default=None)


def _line(point: MeasuredOperator) -> str:
    text = point.model_dump_json()
    return f"{sha256_text(text)} {text}\n"


def _read_points(log: Path) -> list[MeasuredOperator]:
    """Return the points that a killed run has measured, up to the first line whose hash does not fit."""
    found: list[MeasuredOperator] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []:
        digest, _, text = line.partition(" ")
        if digest != sha256_text(text):
            break
        found.append(MeasuredOperator.model_validate_json(text))
    return found


def grid_points(operators: tuple[Operator, ...], groups: Iterable[Group], step: int, *, middle: bool = True) -> list[OperatorPoint]:
    """Return the grid of every operator class.

    Args:
        operators: Operators of the dense network.
        groups: Groups that the operators were read with.
        step: Channel multiple.
        middle: Whether a side has the aligned point halfway between its ends too.
    """
    full = {group.name: group.width for group in groups}
    narrow = {group.name: min(width_step(group, step), group.width) for group in groups}
    ends: dict[OperatorClass, tuple[set[int], set[int]]] = {}
    for operator in operators:
        ins, outs = ends.setdefault(operator.operator, (set(), set()))
        for widths in (narrow, full):
            ci, co = (_whole(channels, operator.operator.groups) for channels in operator.channels(widths))
            ins.add(ci)
            outs.add(co)
    points: list[OperatorPoint] = []
    for cls, (ins, outs) in ends.items():
        axes = [_axis(side, math.lcm(cls.step(step), cls.groups), middle=middle) for side in (ins, outs)]
        pairs = [(c, cls.outputs(c)) for c in axes[0]] if cls.one_axis else [(ci, co) for ci in axes[0] for co in axes[1]]
        points += [OperatorPoint(cls, *pair) for pair in pairs]
    return points


def _whole(channels: int, groups: int) -> int:
    """Return channels that fill every group of an operator alike."""
    return math.ceil(channels / groups) * groups


def _axis(ends: set[int], step: int, *, middle: bool) -> list[int]:
    """Return the least and the most channels of one side of a class, and the aligned point between them."""
    least, most = min(ends), max(ends)
    between = round((least + most) / 2 / step) * step
    return sorted({least, most, between} if middle and least < between < most else {least, most})
