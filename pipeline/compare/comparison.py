"""Result of a comparison of targets: an outcome per profile, and the time that sharing the trunk saved."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import HardwareProfile, Precision
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.errors import GateMissed
from bonsai.stages.measurement.measurements import NO_REFERENCE, Gate, Row, has_reference, unmet
from bonsai.stages.measurement.verdicts import fails
from bonsai.stages.reporting.comparison import TRUNK
from bonsai.stages.reporting.model_card import row_cells
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.manifest import read_manifest
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.registry import DEFAULT, task_named


def columns_of(metric: Metric) -> tuple[str, ...]:
    """Return the columns of the CSV file; a metric in per cent is a ratio 0-1 there, a speed-up is the dense engine's p50 over the shipped one's."""
    return (
        "profile", "exit_code", "error", "device", "runtime", "precision", *_keys(metric), "p50_ms", "p99_ms", "latency_source", "speedup_dense_fp32",
        "speedup_dense_fp16", "memory_mb", "energy_mj", "cold_start_s", "size_bytes", "parameters", "macs",
        "gates_met", "gates_missed", "gates_undecided", "folder",
    )  # fmt: skip


def header_of(metric: Metric) -> tuple[str, ...]:
    """Return the head of the table that people read; "x" are how many times as fast, by p50."""
    accuracy = f"{metric.label} (95 % CI)"
    return (
        "profile",
        "shipped",
        accuracy,
        "p50 ms",
        "p99 wall ms",
        "x dense FP32",
        "x dense FP16",
        "size MB",
        "memory MB",
        "energy mJ",
        "cold start s",
        "latency is",
        "gates",
    )


def _keys(metric: Metric) -> tuple[str, str, str]:
    return metric.name, f"{metric.name}_low", f"{metric.name}_high"


class Outcome(Record):
    """Result for one profile: a package, or an error.

    Attributes:
        profile: Its name, and that of the variant behind it.
        settings: The keys that variants differ in, and what they are here.
        device: Device in the profile.
        exit_code: 0, 3 where a gate is missed or undecided, or the error's.
        error: The message; empty where there is a package.
        package: Its name; empty where there is none. So are the fields that follow.
        folder: Folder of the package.
        metric: The metric of all accuracies.
        allow_undecided: Whether an undecided gate is no failure.
        speedup_fp32: p50 of the dense FP32 engine over that of the shipped one; None where that engine was not built.
        speedup_fp16: The same over the dense FP16 engine.
    """

    profile: str
    settings: dict[str, Any] = {}
    device: str = ""
    runtime: str = ""
    exit_code: int
    error: str = ""
    package: str = ""
    folder: str = ""
    metric: Metric = task_named(DEFAULT).metric
    engine_sha256: str = ""
    rows: tuple[Row, ...] = ()
    gates: tuple[Gate, ...] = ()
    allow_undecided: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    speedup_fp32: float | None = None
    speedup_fp16: float | None = None

    @property
    def shipped(self) -> Row | None:
        """The line of the engine that is shipped."""
        return next((row for row in self.rows if row.shipped), None)

    @property
    def unmet(self) -> tuple[Gate, ...]:
        """The gates that are missed or undecided."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def failing(self) -> tuple[Gate, ...]:
        """The gates that the exit code is for."""
        return tuple(gate for gate in self.gates if fails(gate, self.allow_undecided))

    @property
    def reference(self) -> str:
        """A sentence that there is no dense reference; empty if there is one, or if there is no package."""
        return "" if has_reference(self.rows) else NO_REFERENCE

    @property
    def estimated(self) -> bool:
        """Whether the shipped engine's latency is an estimate."""
        return self.shipped is not None and self.shipped.latency is not None and self.shipped.latency.source == "estimated"


class Cost(Record):
    """How long the profiles' stages took, and how much of that separate runs would have repeated.

    The seconds are the wall time of each stage's last run, even if other programs ran at the same time. If a stage was stopped, only
    the time since it was continued counts. Only profiles that ended with a package count.

    Attributes:
        runs: Number of those profiles.
        together: Seconds of their stages, each counted once.
        repeated: Seconds of stages that more than one of them needed, once for each after the first.
        trunk: Of `together`, the seconds of the dense training.
    """

    runs: int
    together: float
    repeated: float
    trunk: float

    @property
    def sentence(self) -> str:
        """What sharing saved, in a sentence."""
        measured = "measured, each stage's last run"
        if self.runs < 2:
            return f"Stages took {self.together:.1f} s ({measured}); with {self.runs} finished there was nothing to share."
        separate = self.together + self.repeated
        took = f"The stages of {self.runs} profiles took {self.together:.1f} s ({measured}), the dense trunk {self.trunk:.1f} s of them"
        return f"{took}. Sharing saved {self.repeated:.1f} s ({self.repeated / separate:.0%})."


class Comparison(Record):
    """One recipe on several targets, or in several variants.

    Attributes:
        outcomes: Results by variant, and by profile in the order given.
    """

    recipe: str
    outcomes: tuple[Outcome, ...]
    cost: Cost

    @property
    def title(self) -> str:
        """The recipe, and how many outcomes there are."""
        varied = any(outcome.settings for outcome in self.outcomes)
        return f"{self.recipe} in {len(self.outcomes)} variants" if varied else f"{self.recipe} on {len(self.outcomes)} profiles"

    @property
    def exit_code(self) -> int:
        """That of the first error; else 3 where a gate is missed or undecided, else 0."""
        return next((o.exit_code for o in self.outcomes if o.error), max((o.exit_code for o in self.outcomes), default=0))


def outcome_of(
    profile: HardwareProfile, result: Package | BonsaiError, packages: Path, settings: Mapping[str, Any] = {}, *, allow_undecided: bool = False
) -> Outcome:
    """Return what became of a profile.

    Args:
        profile: Which one.
        result: Its package, or its error.
        packages: Folder of the packages.
        settings: The keys that variants differ in, and the values of this one; empty if there is one variant.
        allow_undecided: Whether an undecided gate is no failure.
    """
    about = {"profile": profile.name, "settings": dict(settings), "device": profile.target.device.name, "runtime": profile.target.runtime}
    if isinstance(result, BonsaiError):
        return Outcome(**about, exit_code=result.exit_code, error=str(result))
    return Outcome(
        **about,
        exit_code=GateMissed.exit_code if any(fails(gate, allow_undecided) for gate in result.gates) else 0,
        package=result.name,
        metric=result.metric,
        folder=str(packages / result.name),
        engine_sha256=result.engine_sha256,
        rows=result.rows,
        gates=result.gates,
        allow_undecided=allow_undecided,
        notes=result.notes,
        warnings=result.warnings,
        speedup_fp32=_speedup(result.rows, "fp32"),
        speedup_fp16=_speedup(result.rows, "fp16"),
    )


def _speedup(rows: Sequence[Row], precision: Precision) -> float | None:
    dense = next((row.latency for row in rows if row.network == "dense" and row.precision == precision), None)
    shipped = next(row.latency for row in rows if row.shipped)
    return dense.p50 / shipped.p50 if dense is not None and shipped is not None else None


def cost_of(used: Mapping[str, Sequence[Artifact]]) -> Cost:
    """Return what the stages took that each profile needed.

    Args:
        used: Artifacts by profile; those of the trunk are in the list of each.
    """
    needed = {name: {artifact.folder for artifact in artifacts} for name, artifacts in used.items()}
    seconds = {folder: read_manifest(folder).seconds for folders in needed.values() for folder in folders}
    repeats = {folder: sum(folder in folders for folders in needed.values()) - 1 for folder in seconds}
    return Cost(
        runs=len(needed),
        together=sum(seconds.values()),
        repeated=sum(seconds[folder] * repeats[folder] for folder in seconds),
        trunk=sum(took for folder, took in seconds.items() if folder.parent.name == TRUNK),
    )


def metric_of(outcomes: Sequence[Outcome]) -> Metric:
    """Return what accuracies are of; where no profile has a package, what they usually are."""
    return next((outcome.metric for outcome in outcomes if outcome.package), task_named(DEFAULT).metric)


def show_cells(outcome: Outcome) -> list[str]:
    """Return the outcome's line of the table that people read, in the order of `header_of`."""
    row = outcome.shipped
    if row is None or row.latency is None:
        return [outcome.profile, *["-"] * (len(header_of(outcome.metric)) - 2), f"FAILED, code {outcome.exit_code}"]
    speedups = [f"{times:.2f}" if times is not None else "-" for times in (outcome.speedup_fp32, outcome.speedup_fp16)]
    _, accuracy, p50, p99, size, *_ = row_cells(row, outcome.metric)
    verdict = unmet(outcome.gates) or f"{len(outcome.gates)} met{', with a warning' if outcome.warnings else ''}"
    verdict += ", no reference" if outcome.reference else ""
    beside = row.footprint.cells if row.footprint is not None else ("-", "-", "-")
    return [outcome.profile, row.precision, accuracy, p50, p99, *speedups, size, *beside, row.latency.told, verdict]


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as CSV, a line per profile; a cell is empty where nothing is known. The keys that variants differ in are the last columns."""
    text = io.StringIO()
    keys = dict.fromkeys(key for outcome in outcomes for key in outcome.settings)
    table = csv.DictWriter(text, (*columns_of(metric_of(outcomes)), *keys), lineterminator="\n")
    table.writeheader()
    table.writerows(_line(outcome) for outcome in outcomes)
    return text.getvalue()


def _line(outcome: Outcome) -> dict[str, object]:
    about = {"profile": outcome.profile, "exit_code": outcome.exit_code, "error": outcome.error, "device": outcome.device, "runtime": outcome.runtime}
    about |= outcome.settings
    row = outcome.shipped
    if row is None or row.latency is None:
        return about
    return {
        **about,
        "precision": row.precision,
        **dict(zip(_keys(outcome.metric), (row.judged.value, row.judged.low, row.judged.high), strict=True)),
        "p50_ms": row.latency.p50,
        "p99_ms": row.latency.p99,
        "latency_source": row.latency.told,
        "speedup_dense_fp32": outcome.speedup_fp32,
        "speedup_dense_fp16": outcome.speedup_fp16,
        **(row.footprint.figures if row.footprint is not None else {}),
        "size_bytes": row.size_bytes,
        "parameters": row.parameters,
        "macs": row.macs,
        "gates_met": len(outcome.gates) - len(outcome.unmet),
        "gates_missed": sum(gate.verdict == "missed" for gate in outcome.gates),
        "gates_undecided": sum(gate.verdict == "undecided" for gate in outcome.gates),
        "folder": outcome.folder,
    }
