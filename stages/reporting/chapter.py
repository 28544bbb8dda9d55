"""The chapter of one package: the verdict, and the parts that it rests on."""

from bonsai.stages.measurement.latency import TABLE_ELSEWHERE
from bonsai.stages.measurement.measurements import NO_REFERENCE, VERDICTS, Gate, unmet
from bonsai.stages.reporting.content import Chapter, Fact, Table
from bonsai.stages.reporting.evidence import Evidence, interval, latency_of, percent, written
from bonsai.stages.reporting.making import decided_by, fitting_part, learning_part, trigger_part, widths_part
from bonsai.stages.reporting.provenance import provenance_part
from bonsai.stages.reporting.results import classes_part, coverage_part, operators_part, results_part


def write_chapter(evidence: Evidence, slug: str) -> Chapter:
    """Return all about one package.

    Args:
        evidence: Evidence of the package.
        slug: Put before the names of its figures, which are then unlike those of other chapters.
    """
    return Chapter(
        name=evidence.manifest.name,
        outcome=evidence.outcome,
        headline=_headline(evidence),
        warnings=evidence.manifest.warnings,
        basis=_basis(evidence),
        facts=(_latency(evidence), _speed_up(evidence), _accuracy(evidence), _size(evidence), *_beside(evidence)),
        gates=_gates(evidence.manifest.gates),
        parts=(
            results_part(evidence, slug),
            *classes_part(evidence, slug),
            widths_part(evidence, slug),
            trigger_part(evidence, slug),
            learning_part(evidence, slug),
            operators_part(evidence, slug),
            coverage_part(evidence),
            fitting_part(evidence),
            provenance_part(evidence),
        ),
    )


def _headline(evidence: Evidence) -> str:
    gates = evidence.manifest.gates
    missed = ", ".join(gate.name for gate in gates if gate.verdict == "missed")
    undecided = unmet([gate for gate in gates if gate.verdict == "undecided"])
    verdict = {
        "met": "Meets its budget and every gate",
        "estimated": "Meets its budget by estimate, and every other gate",
        "undecided": undecided or "Meets its budget and every gate, which means little: see the warning",
        "missed": f"MISSES {missed}" + (f"; {undecided}" if undecided else ""),
    }
    about = "about " if evidence.is_estimated else ""
    return (
        f"{verdict[evidence.outcome]}: {about}{evidence.speed_up.times:.2f} times as fast as dense {evidence.dense.precision.upper()}, "
        f"{evidence.metric.label} {written(evidence.metric, evidence.shipped.judged.value)}"
    )


def _basis(evidence: Evidence) -> str:
    manifest, target = evidence.manifest, evidence.manifest.profile.target
    names = [section.get("name") for section in (manifest.recipe.get("model"), manifest.recipe.get("data")) if isinstance(section, dict)]
    subject = f"{names[0]} on {names[1]}: a" if len(names) == 2 else "A"
    engine = f"{subject} pruned {evidence.shipped.precision.upper()} engine for {manifest.device.device}, "
    engine += f"{manifest.device.runtime} {manifest.device.runtime_version}"
    how = "Latency was measured on this engine and device"
    if evidence.is_estimated:
        elsewhere = latency_of(evidence.shipped).clock == TABLE_ELSEWHERE
        how = "Latency is ESTIMATED: the engine was built, but not run" + (f"; latency table {evidence.decisions.table_source}" if elsewhere else "")
    points = "".join(f"; also at {point.label}" for point in manifest.profile.points)
    return f"{engine}, batch {target.batch}, {target.threads} thread(s){points}. {how}; {decided_by(evidence)}."


def _latency(evidence: Evidence) -> Fact:
    budget, shipped, dense = evidence.manifest.profile.budget, evidence.milliseconds(evidence.shipped), evidence.milliseconds(evidence.dense)
    limit = f"{budget.latency_ms:g} ms" if budget.latency_ms is not None else f"{percent(budget.latency or 1)} of dense {evidence.dense.precision.upper()}"
    spread = "" if latency_of(evidence.shipped).stable else f"; runs spread by a CV of {latency_of(evidence.shipped).cv:.1%}, above 2.5 %: unstable"
    return Fact(
        label=f"Latency p{budget.percentile}, {latency_of(evidence.shipped).told}",
        value=f"{shipped:.3f} ms",
        note=f"{percent(shipped / dense)} of dense {evidence.dense.precision.upper()} ({dense:.3f} ms); the budget is {limit}{spread}",
    )


def _speed_up(evidence: Evidence) -> Fact:
    reference = evidence.dense.precision
    others = {precision: evidence.speed_up_over(precision) for precision in ("fp32", "fp16", "int8") if precision != reference}
    known = [f"{found.times:.2f}x over dense {precision.upper()}" for precision, found in others.items() if found is not None]
    rest = f"; estimated from the latency table: {', '.join(known)}" if known else ""
    how = latency_of(evidence.shipped).told if evidence.is_estimated else "both engines timed in turns on the device"
    return Fact(label=f"Speed-up over dense {reference.upper()}", value=f"{evidence.speed_up.times:.2f}x", note=f"{how}{rest}")


def _accuracy(evidence: Evidence) -> Fact:
    shipped, dense, metric = evidence.shipped.judged, evidence.dense.accuracy, evidence.metric
    reference = NO_REFERENCE if dense is None else f"dense {written(metric, dense.value)} ({interval(dense, metric)})"
    return Fact(
        label=f"Test {metric.label}",
        value=written(metric, shipped.value),
        note=f"95 % interval {interval(shipped, metric)}, {shipped.n} images, by {shipped.measured_by}; {reference}",
    )


def _size(evidence: Evidence) -> Fact:
    shipped, dense = evidence.shipped, evidence.dense
    return Fact(
        label="Engine file",
        value=f"{shipped.size_bytes / 1e6:.2f} MB",
        note=f"{dense.size_bytes / shipped.size_bytes:.1f} times smaller than dense {dense.precision.upper()}, {dense.size_bytes / 1e6:.2f} MB",
    )


def _beside(evidence: Evidence) -> tuple[Fact, ...]:
    """Return memory, start and energy of the shipped engine; nothing where it was not run alone."""
    found = evidence.shipped.footprint
    if found is None:
        return ()
    facts = [
        Fact(
            label="Cold start",
            value=f"{found.cold_s:.2f} s",
            note=f"process and runtime {found.start_s:.2f} s, loading {found.load_s:.3f} s, first output {found.first_s:.3f} s; "
            f"loaded again in the same process {found.warm_s:.3f} s",
        )
    ]
    if found.memory_mb is not None:
        note = f"added at the peak; the process had {found.before_mb:.1f} MB without the engine, and {found.peak_mb:.1f} MB with it"
        facts.insert(0, Fact(label="Memory", value=f"{found.memory_mb:.2f} MB", note=note))
    if found.energy_mj is not None:
        facts.append(Fact(label="Energy", value=f"{found.energy_mj:.3g} mJ", note=f"for one inference, by {found.meter}"))
    return tuple(facts)


def _gates(gates: tuple[Gate, ...]) -> Table:
    return Table(
        caption="Gates: limits that the finished engine must meet",
        headers=("gate", "verdict", "found", "95 % interval", "limit", "unit", "note"),
        rows=tuple(
            (gate.name, VERDICTS[gate.verdict], f"{gate.found:.4g}", gate.interval or "-", f"{gate.limit:.4g}", gate.unit, gate.note or "-") for gate in gates
        ),
        strong=tuple(place for place, gate in enumerate(gates) if not gate.passed),
    )
