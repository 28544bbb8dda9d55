"""How several packages compare, and what failed."""

from collections.abc import Mapping, Sequence

from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.measurement.measurements import unmet
from bonsai.stages.reporting.chapter import write_chapter
from bonsai.stages.reporting.content import Figure, Part, Report, Table
from bonsai.stages.reporting.evidence import Evidence, SpeedUp, interval, latency_of, written
from bonsai.stages.reporting.plots import Point, draw_tradeoff, mark_front
from bonsai.stages.reporting.results import point_of
from bonsai.stages.reporting.svg import inline

TRUNK = "train_dense"
"""Name of the stage that trains the trunk; the addresses of its artifacts begin with it."""


def write_report(packages: Sequence[PackageManifest], title: str, failures: Mapping[str, str], note: str) -> Report:
    """Return a report over packages, compared where there are several or something failed."""
    found = [Evidence(manifest) for manifest in packages]
    compared = len(found) != 1 or bool(failures)
    summary = []
    if compared and found:
        summary.append(_comparison(found))
    if failures:
        summary.append(_failures(failures))
    notes = [_tally(found, failures) if compared else "", note or (_shared(packages) if len(packages) > 1 else "")]
    return Report(
        title=title,
        notes=tuple(note for note in notes if note),
        summary=tuple(summary),
        chapters=tuple(write_chapter(evidence, f"p{place}") for place, evidence in enumerate(found, 1)),
    )


def _tally(found: Sequence[Evidence], failures: Mapping[str, str]) -> str:
    """Return how many profiles got what they asked for."""
    outcomes = [evidence.outcome for evidence in found]
    parts = [f"{outcomes.count('met') + outcomes.count('estimated')} of {len(found) + len(failures)} profiles meet their budget and gates"]
    if outcomes.count("estimated"):
        parts.append(f"{outcomes.count('estimated')} of them by an ESTIMATED latency")
    if outcomes.count("undecided"):
        parts.append(f"{outcomes.count('undecided')} UNDECIDED")
    if outcomes.count("missed"):
        parts.append(f"{outcomes.count('missed')} MISSED a gate")
    if failures:
        parts.append(f"{len(failures)} FAILED")
    return ", ".join(parts) + "."


def _comparison(found: Sequence[Evidence]) -> Part:
    title = "Accuracy against latency, over all profiles"
    points, metric = _points(found), found[0].metric
    shown = "; ".join(f"{point.label}: {written(metric, point.value)} at {point.latency:.1f} %" for point in points)
    drawing = draw_tradeoff(points, metric, "latency, % of the dense reference on the same device", "test", None)
    front = ", ".join(point.label for point in points if point.is_front)
    return Part(
        title="Comparison",
        texts=(
            "Latency is shown against the dense network on the same device, since milliseconds of different devices do not compare. "
            "Hollow marks are estimates: those engines were built, not run."
            + ("" if all(evidence.has_reference for evidence in found) else " A network without a dense reference has no mark for it."),
            f"On the Pareto front, where nothing is both as accurate and faster: {front}.",
        ),
        figures=(Figure(title=title, svg=inline(drawing, "all-tradeoff", title, f"{shown}.")),),
        tables=(
            Table(
                caption="Shipped engines",
                headers=(
                    "profile",
                    "verdict",
                    metric.label,
                    "95 % interval",
                    "p50 ms",
                    "p99 wall ms",
                    "over dense FP32",
                    "over dense FP16",
                    "MB",
                    "precision",
                    "latency is",
                ),
                rows=tuple(_row(evidence) for evidence in found),
                strong=tuple(place for place, evidence in enumerate(found) if evidence.outcome in {"missed", "undecided"}),
            ),
            *_alone(found),
        ),
    )


def _alone(found: Sequence[Evidence]) -> tuple[Table, ...]:
    """Return memory, energy and start of the engines that were run alone; no table where none was."""
    rows = tuple((evidence.profile, *evidence.shipped.footprint.cells) for evidence in found if evidence.shipped.footprint is not None)
    return (Table(caption="Shipped engines, each run alone", headers=("profile", "memory MB", "energy mJ", "cold start s"), rows=rows),) if rows else ()


def _points(found: Sequence[Evidence]) -> tuple[Point, ...]:
    """Return the shipped engines, and each dense reference that differs in accuracy, against the dense latency in per cent."""
    points: list[Point] = []
    for evidence in found:
        if evidence.dense.accuracy is not None:
            dense = point_of(evidence, evidence.dense, evidence.dense.label, 100.0, evidence.dense.accuracy)
            if all((point.value, point.label) != (dense.value, dense.label) for point in points):
                points.append(dense)
        points.append(
            point_of(
                evidence,
                evidence.shipped,
                evidence.profile,
                100 * evidence.milliseconds(evidence.shipped) / evidence.milliseconds(evidence.dense),
                evidence.shipped.judged,
            )
        )
    return mark_front(points, found[0].metric)


def _row(evidence: Evidence) -> tuple[str, ...]:
    shipped = evidence.shipped
    latency = latency_of(shipped)
    return (
        evidence.profile,
        _verdict(evidence),
        written(evidence.metric, shipped.judged.value),
        interval(shipped.judged, evidence.metric),
        f"{latency.p50:.3f}",
        "-" if latency.p99 is None else f"{latency.p99:.3f}",
        *(_shown(evidence.speed_up_over(precision)) for precision in ("fp32", "fp16")),
        f"{shipped.size_bytes / 1e6:.2f}",
        shipped.precision,
        latency.told,
    )


def _verdict(evidence: Evidence) -> str:
    failing = unmet(evidence.manifest.gates)
    if evidence.outcome == "undecided":
        return failing or "met, with a warning"
    return failing or {"met": "all gates met", "estimated": "met, latency by estimate"}[evidence.outcome]


def _shown(speed_up: SpeedUp | None) -> str:
    return "-" if speed_up is None else str(speed_up)


def _failures(failures: Mapping[str, str]) -> Part:
    table = Table(caption="Profiles without a package", headers=("profile", "error"), rows=tuple(failures.items()), strong=tuple(range(len(failures))))
    return Part(title="Failed", tables=(table,))


def _shared(packages: Sequence[PackageManifest]) -> str:
    """Return what the packages share, by the seconds that stand in their lineages; nothing where they share nothing."""
    whole = [{ancestor.digest: ancestor for ancestor in manifest.lineage} for manifest in packages]
    together = {digest: ancestor for lineage in whole for digest, ancestor in lineage.items()}
    alone = sum(ancestor.seconds for lineage in whole for ancestor in lineage.values())
    once = sum(ancestor.seconds for ancestor in together.values())
    shared = [ancestor for digest, ancestor in together.items() if sum(digest in lineage for lineage in whole) > 1]
    trunk = sum(ancestor.seconds for ancestor in shared if ancestor.artifact.startswith(f"{TRUNK}/"))
    if not shared:
        return ""
    return (
        f"What these packages were made from took {once / 60:.1f} minutes of the stages' wall time; each alone would have made it {alone / 60:.1f}. "
        f"{len(shared)} of {len(together)} artifacts are shared, of which {trunk / 60:.1f} minutes are the training of the dense trunk."
    )
