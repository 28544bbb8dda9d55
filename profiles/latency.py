"""Latency of a network as a function of its widths: a table of operators and a line over their sum.

    predicted_ms = a + b * sum(table_ms(operator))

Operators are looked up by class and interpolated bilinearly in input and output channels, which
holds for widths that are multiples of the device's step; `a` and `b` come from two whole networks
(dense, and every group at one step) timed end to end.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, overload

import numpy as np
from pydantic import AliasChoices, ConfigDict, Field, ValidationError

from bonsai.profiles.bounded_json import parse_json, read_text
from bonsai.profiles.errors import ConfigError, describe, shorten
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Isa, Precision

SCHEMA = 2
"""Version of the file format. Version 1 had only square kernels, treated grouped convolutions as narrow dense ones, and had rows only for
convolutions and linear layers."""
COLUMNS = ("op", "k", "s", "d", "h", "w", "in", "groups", "tokens", "epilogue", "float", "ci", "co", "p10_us", "p50_us", "reps", "kernels")
META = "#meta "
DEPTHWISE = "depthwise*"
"""In the column `groups`, `depthwise*2` is a depthwise convolution of two outputs per channel. Other groups that leave whole are INPUTSxOUTPUTS, as `4x8`."""


OURS = "a file of `bonsai characterize`, as it was written"
AGAIN = "characterise the network again on the device, or copy the file again"
ROW = "an operator with whole numbers of channels, and times in microseconds that are finite and not negative"
Channels = Annotated[int, Field(ge=1, le=10**7)]
Microseconds = Annotated[float, Field(ge=0, le=1e9)]


class Entry(Record):
    """One measured or estimated point: an operator class at given channels, times in microseconds."""

    model_config = ConfigDict(allow_inf_nan=False)

    operator: OperatorClass
    ci: Channels
    co: Channels
    p10_us: Microseconds
    p50_us: Microseconds
    reps: Annotated[int, Field(ge=0)]
    kernels: str


class Line(Record):
    """`predicted_ms = offset_ms + scale * sum_ms`, from whole networks timed end to end."""

    model_config = ConfigDict(allow_inf_nan=False)

    offset_ms: float = 0.0
    scale: float = 1.0

    @classmethod
    def through(cls, low: tuple[float, float], high: tuple[float, float]) -> "Line":
        """Fit the line through two points (sum_ms, measured_ms)."""
        scale = (high[1] - low[1]) / (high[0] - low[0])
        return cls(offset_ms=low[1] - scale * low[0], scale=scale)


class Origin(Record):
    """Who measured a shared table, on which machine, and how.

    Attributes:
        recipe: The recipe whose network was measured.
        isa: Instruction sets of the machine that matter to kernels.
        cores: Its number of cores.
        system: Its operating system and architecture.
        by: Who measured; empty if nobody said.
        protocol: How it was measured, in words.
        error: Mean and largest relative error of the predicted latency of networks that the table was not fitted to.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    recipe: str
    isa: tuple[Isa, ...]
    cores: int
    system: str
    by: str = ""
    protocol: str
    error: tuple[float, float]


class TableMeta(Record):
    """Where a table comes from.

    Attributes:
        source: ``measured`` on the device, or ``estimated`` from published rates.
        step: Channel multiple of the device's kernels; other widths cost as much as the next multiple.
        contention: Wall time over CPU time while measuring; 1 on a quiet machine.
        spread: Median over the entries of their median time over their tenth percentile.
        line: From the sum to whole networks, where some were timed; the entries then hold corrections by class too. Older files call it `calibration`.
        origin: What travels with a shared table.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    schema_version: int = SCHEMA
    source: Literal["measured", "estimated"]
    device: str
    runtime: str
    runtime_version: str
    precision: Precision
    batch: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    step: Channels
    clock: str
    statistic: str
    date: str
    contention: float | None = None
    spread: float | None = None
    line: Annotated[Line | None, Field(validation_alias=AliasChoices("line", "calibration"))] = None
    origin: Origin | None = None


class LatencyTable:
    """Times of operators on one device, runtime and precision; immutable."""

    def __init__(self, meta: TableMeta, entries: Iterable[Entry]) -> None:
        """Index the entries.

        Raises:
            ConfigError: A class lacks a corner of its grid.
        """
        self.meta = meta
        self.entries = tuple(entries)
        points: dict[OperatorClass, dict[tuple[int, int], float]] = {}
        for entry in self.entries:
            points.setdefault(entry.operator, {})[entry.ci, entry.co] = entry.p50_us / 1e3
        self._grids = {operator: _grid(operator, found) for operator, found in points.items()}

    @overload
    def lookup_ms(self, operator: OperatorClass, ci: int, co: int) -> float: ...
    @overload
    def lookup_ms(self, operator: OperatorClass, ci: np.ndarray, co: np.ndarray) -> np.ndarray: ...
    def lookup_ms(self, operator: OperatorClass, ci: int | np.ndarray, co: int | np.ndarray) -> float | np.ndarray:
        """Return the milliseconds of an operator with `ci` input and `co` output channels; of arrays by broadcasting.

        Interpolated bilinearly between the nearest grid points and extrapolated from the outermost. A width that is neither on the grid nor a
        multiple of the device's step costs as much as the next multiple. Two kinds of operators are not rounded up to the step: those that lose
        whole groups are rounded up to a whole group, and light ones whose grid begins below the step, such as a softmax over heads, not at all.

        Raises:
            ConfigError: The table does not hold this operator class.
        """
        if operator not in self._grids:
            raise ConfigError(
                describe(
                    "the latency table lacks an operator of this network",
                    given=operator.model_dump_json(),
                    allowed="a table that was characterised for the same network and input size",
                    fix="characterise the network again on the device",
                )
            )
        ins, outs, grid = self._grids[operator]
        step = 1 if operator.is_light and ins[0] < self.meta.step else operator.step(self.meta.step)
        at = _Between.of(ins, ci, step)
        if operator.one_axis:
            found = at.mix(grid[at.left], grid[at.right])
        else:
            to = _Between.of(outs, co, step)
            found = at.mix(to.mix(grid[at.left, to.left], grid[at.left, to.right]), to.mix(grid[at.right, to.left], grid[at.right, to.right]))
        return float(found) if np.ndim(found) == 0 else found

    def to_text(self) -> str:
        """Return the table as CSV, with its meta data in the first line."""
        stream = io.StringIO(newline="")
        stream.write(f"{META}{self.meta.model_dump_json()}\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in self.entries:
            writer.writerow([*_row(entry.operator), entry.ci, entry.co, f"{entry.p10_us:.3f}", f"{entry.p50_us:.3f}", entry.reps, entry.kernels])
        return stream.getvalue()

    @classmethod
    def from_text(cls, text: str, name: object) -> "LatencyTable":
        """Read a table.

        Args:
            text: What `to_text` returns.
            name: File or place that the text is from, for messages.

        Raises:
            ConfigError: The text is no table, or has a row that is none.
        """
        first, _, rest = text.partition("\n")
        if not first.startswith(META):
            raise ConfigError(describe(f"{name}: no latency table", given=first[:40], allowed="a first line `#meta {json}`", fix="check the path"))
        return cls(_meta(name, first.removeprefix(META)), _entries(name, rest))

    def save(self, file: Path) -> None:
        """Write the table as `to_text` returns it."""
        file.write_text(self.to_text(), encoding="utf-8", newline="")

    @classmethod
    def load(cls, file: Path, *, expect: Mapping[str, Any] | None = None) -> "LatencyTable":
        """Read a table that `save` wrote.

        Args:
            file: Its file.
            expect: Values of `TableMeta` that the table must have, such as ``{"precision": "int8"}``.

        Raises:
            ConfigError: The file is no table, has a row that is none, or was measured under other conditions.
        """
        table = cls.from_text(read_table_text(file), file)
        table.require(expect or {}, file)
        return table

    def require(self, expected: Mapping[str, Any], name: object) -> None:
        """Raise a ConfigError where the table was measured under other conditions than the expected values of `TableMeta`."""
        for key, wanted in expected.items():
            if getattr(self.meta, key) != wanted:
                raise ConfigError(
                    describe(
                        f"{name}: measured under other conditions",
                        given=f"{key} = {getattr(self.meta, key)}",
                        allowed=wanted,
                        fix="bring the table of this target",
                    )
                )


def read_table_text(file: Path) -> str:
    """Return the text of a file of tables.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return read_text(file)
    except (OSError, ValueError) as error:
        raise ConfigError(describe(f"{file}: a latency table cannot be read", given=error, allowed=OURS, fix="check the path")) from error


def _meta(file: object, text: str) -> TableMeta:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ConfigError(describe(f"{file}:1: no JSON after #meta", given=error, allowed=OURS, fix=AGAIN)) from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version != SCHEMA:
        raise ConfigError(
            describe(
                f"{file}: a latency table of another edition of Bonsai",
                given=f"schema {shorten(str(version))}",
                allowed=f"schema {SCHEMA}; before it, kernels that are no squares, groups and what is no convolution were measured wrongly or not at all",
                fix="characterise the network again on the device: `bonsai characterize RECIPE`",
            )
        )
    try:
        return TableMeta.model_validate(found)
    except ValidationError as error:
        raise ConfigError(describe(f"{file}:1: #meta is not usable", given=_first_fault(error), allowed=OURS, fix=AGAIN)) from error


def _entries(file: object, text: str) -> Iterator[Entry]:
    """Yield the rows of a table, each channel pair of an operator once.

    Raises:
        ConfigError: A row is none, or is there twice; or no operator takes any time.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: dict[tuple[OperatorClass, int, int], int] = {}
    takes_time = False
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise ConfigError(describe(f"{file}:2: other columns", given=", ".join(header), allowed=COLUMNS, fix=AGAIN))
        for cells in reader:
            line = reader.line_num + 1
            if len(cells) != len(COLUMNS):
                raise ConfigError(describe(f"{file}:{line}: a row is not usable", given=f"{len(cells)} cells", allowed=f"{len(COLUMNS)} cells", fix=AGAIN))
            try:
                entry = _entry(dict(zip(COLUMNS, cells, strict=True)))
            except ValidationError as error:
                raise ConfigError(describe(f"{file}:{line}: a row is not usable", given=_first_fault(error), allowed=ROW, fix=AGAIN)) from error
            point = (entry.operator, entry.ci, entry.co)
            if point in lines:
                problem = f"{file}:{line}: an operator's channels are there twice"
                given = f"first at line {lines[point]}: {entry.operator}, {entry.ci} to {entry.co}"
                raise ConfigError(describe(problem, given=given, allowed="each pair of channels once", fix="delete one of the two rows"))
            lines[point] = line
            takes_time = takes_time or entry.p50_us > 0
            yield entry
    except csv.Error as error:
        raise ConfigError(describe(f"{file}:{reader.line_num + 1}: no CSV", given=error, allowed=OURS, fix=AGAIN)) from error
    if not takes_time:
        given = f"{len(lines)} rows, none above 0 us"
        raise ConfigError(describe(f"{file}: no operator takes any time", given=given, allowed="rows with a p50_us above 0", fix=AGAIN))


def _first_fault(error: ValidationError) -> str:
    """Return where and what the first fault of a record is, in a line."""
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))} = {shorten(repr(fault['input']), 80)}: {fault['msg']}"


def _row(operator: OperatorClass) -> list[object]:
    """Return what stands in a table's row before the channels."""
    o = operator
    pairs = ["x".join(map(str, pair)) for pair in (o.kernel, o.stride, o.dilation)]
    groups: object = o.groups
    if o.group_channels is not None:
        groups = f"{DEPTHWISE}{o.group_channels[1]}" if o.depthwise else "x".join(map(str, o.group_channels))
    return [o.op, *pairs, o.height, o.width, "x".join(map(str, o.input_size or ())), groups, o.tokens, o.epilogue, o.precision or ""]


def _entry(row: dict[str, str]) -> Entry:
    groups = row["groups"].replace(DEPTHWISE, "1x", 1)
    operator = OperatorClass.model_validate(
        {
            "op": row["op"],
            "kernel": row["k"],
            "stride": row["s"],
            "dilation": row["d"],
            "height": row["h"],
            "width": row["w"],
            "input_size": row["in"] or None,
            "groups": 1 if "x" in groups else groups,
            "group_channels": groups if "x" in groups else None,
            "tokens": row["tokens"],
            "epilogue": row["epilogue"],
            "precision": row["float"] or None,
        }
    )
    rest = {key: row[key] for key in ("ci", "co", "p10_us", "p50_us", "reps", "kernels")}
    return Entry.model_validate({"operator": operator, **rest})


class _Between(NamedTuple):
    """Places on an axis: the grid points on both sides and the share of the right one, which extrapolates outside 0-1."""

    left: np.ndarray
    right: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, axis: np.ndarray, value: int | np.ndarray, step: int) -> "_Between":
        value = np.where(np.isin(value, axis), value, -(-np.asarray(value) // step) * step)
        if len(axis) == 1:
            zero = np.zeros(np.shape(value), dtype=int)
            return cls(zero, zero, zero)
        right = np.clip(np.searchsorted(axis, value), 1, len(axis) - 1)
        return cls(right - 1, right, (value - axis[right - 1]) / (axis[right] - axis[right - 1]))

    def mix(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.asarray(left + (right - left) * self.share)


def _grid(operator: OperatorClass, points: Mapping[tuple[int, int], float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input channels, output channels and milliseconds over both; over the input channels alone where the outputs follow from them."""
    ins, outs = sorted({ci for ci, _ in points}), sorted({co for _, co in points})
    needed = [(c, operator.outputs(c)) for c in ins] if operator.one_axis else [(ci, co) for ci in ins for co in outs]
    missing = [point for point in needed if point not in points]
    if missing:
        raise ConfigError(
            describe(
                "the latency table's grid is incomplete",
                given=f"{operator.model_dump_json()} without (ci, co) = {missing[0]}",
                allowed="every pair of its input and output channels",
                fix="characterise the network again on the device",
            )
        )
    times = np.array([points[point] for point in needed])
    return np.array(ins), np.array(outs), times if operator.one_axis else times.reshape(len(ins), len(outs))
