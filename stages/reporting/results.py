"""The parts of the report with results: accuracy against latency, latency by operator, and INT8 coverage."""

from collections.abc import Sequence
from html import escape

from bonsai.stages.measurement.measurements import Accuracy, KernelShare, Row
from bonsai.stages.reporting.content import Figure, Part, Table
from bonsai.stages.reporting.evidence import Evidence, interval, latency_of, percent, written
from bonsai.stages.reporting.plots import Point, draw_operators, draw_tradeoff, mark_front
from bonsai.stages.reporting.points import points_tables
from bonsai.stages.reporting.svg import inline
from bonsai.stages.selection.latency import Forecast, OperatorForecast
from bonsai.stages.tasks.results_table import Picture

LISTED_OPERATORS = 24
"""Number of operators that get their own bar: the slowest ones of the dense network."""

SOURCES = {"estimated": "published rates (roofline)", "measured": "the latency table measured on the device"}
"""Where a latency table is from, in words; one that was brought says it itself."""


def results_part(evidence: Evidence, slug: str) -> Part:
    """Return accuracy against latency of every network that was run."""
    rows, budget = evidence.manifest.metrics, evidence.manifest.profile.budget
    points = mark_front(
        [
            point_of(evidence, row, row.label, evidence.milliseconds(row), on_validation(row))
            for row in rows
            if row.latency is not None and row.accuracy is not None
        ],
        evidence.metric,
    )
    limit = budget.limit_ms(evidence.milliseconds(evidence.dense))
    source = latency_of(evidence.shipped).told
    title = "Accuracy against latency"
    shown = "; ".join(f"{point.label}: {written(evidence.metric, point.value)} at {point.latency:.3f} ms" for point in points)
    drawing = draw_tradeoff(points, evidence.metric, f"latency p{budget.percentile}, ms ({source})", "validation", limit)
    front = ", ".join(point.label for point in points if point.is_front)
    seen = "the dense and the shipped engine on the test images"
    if not evidence.has_reference:
        seen = "the dense engine timed alone, untrained, the shipped one on the test images"
    return Part(
        title=title,
        texts=(
            *evidence.manifest.notes,
            *([evidence.manifest.against.sentence(evidence.metric)] if evidence.manifest.against else []),
            f"The figure shows validation accuracy, by which was chosen. On its Pareto front, where nothing is both as accurate and faster: {front}.",
        ),
        figures=(Figure(title=title, svg=inline(drawing, f"{slug}-tradeoff", title, f"{shown}. The budget is {limit:.3f} ms.")),),
        tables=(
            *points_tables(
                evidence.manifest.profile, latency_of(evidence.dense), latency_of(evidence.shipped), evidence.manifest.points, evidence.manifest.gates
            ),
            Table(
                caption=f"Every network that was run: {seen}, all others on the validation images",
                headers=(
                    "network",
                    evidence.metric.label,
                    "95 % interval",
                    "p50 ms",
                    "p99 wall ms",
                    "of dense",
                    "spread (CV)",
                    "latency is",
                    "MB",
                    "params k",
                    "MACs M",
                    f"{evidence.metric.label} is of",
                ),
                rows=tuple(_row(evidence, row) for row in rows),
                strong=tuple(place for place, row in enumerate(rows) if row.shipped),
            ),
        ),
    )


def classes_part(evidence: Evidence, slug: str) -> tuple[Part, ...]:
    """Return the results by class, label or figure, and a few test images; nothing where the package has neither."""
    tables, pictures = evidence.manifest.tables, evidence.manifest.pictures
    if not tables and not pictures:
        return ()
    return (
        Part(
            title="Results in detail",
            texts=("The shipped engine gave these results on the test images.",),
            figures=tuple(Figure(title=one.title, svg=_embedded(one, f"{slug}-picture-{number}"), caption=one.title) for number, one in enumerate(pictures, 1)),
            tables=tuple(Table(caption=one.caption, headers=one.headers, rows=one.rows, folded=len(one.rows) > LISTED_OPERATORS) for one in tables),
        ),
    )


def _embedded(picture: Picture, name: str) -> str:
    """Return a picture as an element for the page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {picture.width} {picture.height}" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{escape(picture.title)}</title>'
        f'<image width="{picture.width}" height="{picture.height}" style="image-rendering: pixelated" href="data:image/png;base64,{picture.png}"/></svg>'
    )


def on_validation(row: Row) -> Accuracy:
    """Return a row's accuracy on the validation part, which every network was run on."""
    return row.validation or row.judged


def point_of(evidence: Evidence, row: Row, label: str, latency: float, accuracy: Accuracy) -> Point:
    """Return a row as a point of a plot, at an accuracy, and at a latency in the plot's unit."""
    kind = "shipped" if row.shipped else "dense" if row.network == "dense" else "pruned"
    return Point(label=label, kind=kind, latency=latency, value=accuracy.value, low=accuracy.low, high=accuracy.high, estimated=evidence.is_estimated)


def operators_part(evidence: Evidence, slug: str) -> Part:
    """Return where a package's time goes, before and after."""
    kernels = (evidence.manifest.dense_kernels, evidence.manifest.kernels)
    found = forecast_part(evidence.decisions.forecast, evidence.decisions.table_source, slug)
    if any(kernels):
        text = "By kind of kernel the engines were run under the runtime's profiler, which slows every kernel down: read the shares, not times."
    else:
        text = "The kernels of the engines could not be profiled here."
    tables = [_kernel_table(name, shares) for name, shares in zip((evidence.dense.label, evidence.shipped.label), kernels, strict=True) if shares]
    return found.model_copy(update={"texts": (*found.texts, text), "tables": (*found.tables, *tables)})


def forecast_part(forecast: Forecast, table_source: str, slug: str) -> Part:
    """Return where the time goes by the latency model, before and after."""
    precision, title = forecast.precision.upper(), "Latency by operator, before and after"
    ranked = sorted(forecast.operators, key=lambda operator: -operator.dense_ms)
    dearest = {operator.module for operator in ranked[:LISTED_OPERATORS]}
    listed = [operator for operator in forecast.operators if operator.module in dearest]
    table = SOURCES.get(table_source, f"a latency table {table_source}")
    fitted = " and fitted to whole networks" if forecast.overhead_ms else ""
    taken, constant = "pruning alone takes", f"both with the model's constant of {forecast.overhead_ms:+.3f} ms"
    if forecast.dense_overhead_ms is not None:
        constants = f"{forecast.dense_overhead_ms:+.3f} ms and {forecast.overhead_ms:+.3f} ms"
        taken, constant = "pruning and smaller images together take", f"with the models' constants of {constants}"
    texts = [
        f"Predicted at {precision} by {table}{fitted}: an estimate. Both are at {precision}, so this is what {taken} off: "
        f"{forecast.dense_ms:.3f} ms dense, {forecast.kept_ms:.3f} ms pruned, {constant}.",
    ]
    if len(listed) < len(forecast.operators):
        texts.append(f"The figure has the {len(listed)} operators that take longest in the dense network; the table has all {len(forecast.operators)}.")
    tables = [
        Table(
            caption=f"Every operator, predicted at {precision}, in order of execution",
            headers=("operator", "kind", "channels dense", "channels kept", "dense ms", "pruned ms", "left"),
            rows=tuple(_operator_row(operator) for operator in forecast.operators),
            folded=True,
        )
    ]
    description = f"{forecast.dense_ms:.3f} ms dense, {forecast.kept_ms:.3f} ms pruned; the table below has every operator."
    return Part(
        title=title,
        texts=tuple(texts),
        figures=(Figure(title=title, svg=inline(draw_operators(listed), f"{slug}-operators", f"{title}, predicted", description)),),
        tables=tuple(tables),
    )


def coverage_part(evidence: Evidence) -> Part:
    """Return what of the engine is INT8."""
    manifest = evidence.manifest
    texts = [manifest.quantisation]
    if manifest.engine.precision == "int8" and manifest.kernels:
        share = sum(kernel.share for kernel in manifest.kernels if kernel.precision == "int8")
        texts.append(f"{share:.0%} of the kernels' time is spent in INT8, by the runtime's profiler.".replace("%", " %"))
    rows = tuple((name.replace("_", " "), str(count)) for name, count in manifest.engine.coverage.items())
    table = Table(caption=f"What {manifest.engine.runtime} made of the graph", headers=("nodes", "count"), rows=rows)
    return Part(title="INT8 coverage", texts=tuple(texts), tables=(table,) if rows else ())


def _row(evidence: Evidence, row: Row) -> tuple[str, ...]:
    latency = row.latency
    accuracy = row.accuracy
    size = (f"{row.size_bytes / 1e6:.2f}", f"{row.parameters / 1e3:.0f}", f"{row.macs / 1e6:.1f}", "-" if accuracy is None else accuracy.part)
    shown = ("no reference", "-") if accuracy is None else (written(evidence.metric, accuracy.value), interval(accuracy, evidence.metric))
    head = (row.label, *shown)
    if latency is None:
        return (*head, "-", "-", "-", "-", "not an engine", *size)
    share = evidence.milliseconds(row) / evidence.milliseconds(evidence.dense)
    spread = "-" if latency.cv is None else f"{latency.cv:.1%}".replace("%", " %") + ("" if latency.stable else " unstable")
    tail = "-" if latency.p99 is None else f"{latency.p99:.3f}"
    return (*head, f"{latency.p50:.3f}", tail, percent(share), spread, latency.told, *size)


def _operator_row(operator: OperatorForecast) -> tuple[str, ...]:
    channels = (f"{ci} to {co}" for ci, co in (operator.dense, operator.kept))
    left = percent(operator.kept_ms / operator.dense_ms)
    return (operator.module, str(operator.operator), *channels, f"{operator.dense_ms:.4f}", f"{operator.kept_ms:.4f}", left)


def _kernel_table(label: str, kernels: Sequence[KernelShare]) -> Table:
    return Table(
        caption=f"Kernels of {label}, under the profiler",
        headers=("kernel", "computes in", "count", "share of the kernels' time"),
        rows=tuple((kernel.op, kernel.precision, str(kernel.count), f"{kernel.share:.1%}".replace("%", " %")) for kernel in kernels),
    )
