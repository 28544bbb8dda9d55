"""The model card of a package, in Markdown."""

import json

from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.delivery.compatibility import Compatibility
from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.delivery.licences import licence_notes
from bonsai.stages.measurement.condition_text import describe_conditions
from bonsai.stages.measurement.latency import TABLE_ELSEWHERE, Latency
from bonsai.stages.measurement.measurements import GIVEN_REFERENCE, NO_REFERENCE, Challenge, FreshTiming, Gate, Measurement, Row, has_reference, unmet
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.quantization.summary import summarise
from bonsai.stages.reporting.content import Table
from bonsai.stages.reporting.points import points_tables
from bonsai.stages.selection.resolution_records import describe_resolutions
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.results_table import ResultsTable
from bonsai.stages.texts import listed_names, markdown
from bonsai.stages.training.config import TrainConfig, describe_augmentation

MOST_ROWS = 20
"""Largest number of rows and columns of a table by class in the card."""


def write_model_card(
    name: str,
    engine: Engine,
    measurement: Measurement,
    challenge: Challenge | None,
    final: Checkpoint,
    dataset: Dataset,
    profile: HardwareProfile,
    decisions: Decisions,
    compatibility: Compatibility,
    notes: tuple[str, str, str],
    tables: tuple[ResultsTable, ...],
) -> str:
    """Return the model card: verdict, results, how to use the engine, how it was made, licences."""
    gates = (*measurement.gates, *(challenge.gates if challenge else ()))
    estimated = any(gate.note.startswith("estimated") for gate in gates)
    failing = unmet(gates)
    verdict = f"**{failing}.**" if failing else "All gates are met, the latency by estimate only." if estimated else "All gates are met."
    shape = "x".join(str(s) for s in engine.image_shape)
    task = task_named(dataset.task)
    metric, header = task.metric, header_of(task.metric)
    rows = "\n".join(f"| {' | '.join(row_cells(row, metric))} |" for row in measurement.rows)
    outputs = ", ".join(f"`{output.name}`: float32 (batch, {', '.join(map(str, output.shape))})" for output in task.outputs(dataset.spec))
    how, table_source = describe_quantisation(final, metric), markdown(decisions.table_source)
    curve = "trunk, branch and QAT" if any(line.phase == "qat" for line in final.history) else "trunk and branch"
    kept, whole = (decisions.outputs(widths) for widths in (decisions.kept_widths, decisions.dense_widths))
    return f"""# {name}

{verdict}{_warnings(measurement)} Budget: {profile.asked}.

{gate_lines(gates)}

{_points(profile, measurement)}| {" | ".join(header)} |
|{"---|" * len(header)}
{rows}

{chr(10).join((*notes, *([challenge.against.sentence(metric)] if challenge else [])))}

{"".join(map(_by_class, tables))}## Use
Input `input`: float32 (batch, {shape.replace("x", ", ")}), {dataset.preprocess.sentence}. Output {outputs}.
Classes: {markdown(listed_names(dataset.classes))}.
Engine `{engine.file}`, built with {engine.runtime} {engine.info.runtime_version} for {engine.info.device}, needs {compatibility.sentence}.
`python predict.py FILE...` in this folder predicts images; it needs NumPy, Pillow and {compatibility.runtime}. `python predict.py --check FOLDER` computes the
figure of the table again.
`model.onnx` is portable; the engine was built from it{_simplification(engine)}. After every copy run `sha256sum --check SHA256SUMS`, and on the device
`bonsai verify FOLDER`. That compares files, machine and runtime with the manifest, and the engine's outputs with `golden.safetensors`.

## How it was made
Pruned {decisions.trigger.sentence}, by {decisions.criterion}. Latency table: {table_source}. {how}{_resolution(decisions)}{_trunk(decisions)}
{_recovery(decisions, metric)}{_changes(decisions)}

{kept} of {whole} channels are kept{_dropped(final)}. `report.html`, or `report.md` without figures, has the widths
of every group, the networks that were timed to fit the budget, the precisions that were tried, latency by operator, and provenance.

![EPI until the trigger, and the learning curve of {curve}](training.svg)

## Licences
{licence_notes(dataset, final.model, engine.runtime, json.loads(decisions.recipe).get("model", {}).get("weights"))}
"""


def _by_class(table: ResultsTable) -> str:
    """Return the results by class, label or figure; empty if there are many, which the report has."""
    if max(len(table.rows), len(table.headers)) > MOST_ROWS:
        return ""
    return f"{_table(table, ', of the shipped engine on the test images')}\n"


def _points(profile: HardwareProfile, measurement: Measurement) -> str:
    """Return the table of the profile's points; empty where it has none."""
    dense, shipped = measurement.rows[0].latency, measurement.shipped_row.latency
    assert dense is not None and shipped is not None
    tables = points_tables(profile, dense, shipped, measurement.points, measurement.gates)
    return "".join(f"{_table(table)}\n" for table in tables)


def _table(table: Table | ResultsTable, about: str = "") -> str:
    """Return a table below a line with its caption; `about` follows the caption."""
    lines = [table.headers, ("---",) * len(table.headers), *table.rows]
    return "".join([f"{markdown(table.caption)}{about}:\n\n", *(f"| {' | '.join(map(markdown, line))} |\n" for line in lines)])


def _warnings(measurement: Measurement) -> str:
    return "".join(f" **Warning: {markdown(warning)}.**" for warning in measurement.warnings)


def _trunk(decisions: Decisions) -> str:
    """Return sentences on a reference that was given, and on the regulariser that the trunk was trained with; empty if there was neither."""
    recipe = json.loads(decisions.recipe)
    name, reference = recipe["prune"]["regulariser"]["name"], recipe.get("training", {}).get("reference", "trained")
    trunk = "The trunk, and so the dense reference," if reference == "trained" else "The trunk"
    given = f" {GIVEN_REFERENCE}" if reference == "given" else ""
    return given if name == "none" else f"{given} {trunk} was trained with the regulariser {name}."


def _resolution(decisions: Decisions) -> str:
    """Return a sentence on the size of the images; empty if there was no choice."""
    found = describe_resolutions(decisions.resolutions)
    return f" {found[0].upper()}{found[1:]}. The dense network takes the full size." if found else ""


def _dropped(final: Checkpoint) -> str:
    """Return which residual blocks were left out; empty if none was."""
    return f", and the residual blocks {markdown(', '.join(final.dropped))} are left out" if final.dropped else ""


def _changes(decisions: Decisions) -> str:
    """Return a sentence on how training images were changed at random; empty if they were not."""
    training = TrainConfig.model_validate({key: value for key, value in json.loads(decisions.recipe).get("training", {}).items() if key == "augment"})
    changes = describe_augmentation(training.augment)
    return f" Training images were changed at random: {markdown(changes)}." if changes else ""


def _recovery(decisions: Decisions, metric: Metric) -> str:
    """Return what a recovery of a length of its own took; empty if its length was fixed."""
    return "" if decisions.recovery is None else f" {decisions.recovery.sentence(metric)}"


def describe_quantisation(final: Checkpoint, metric: Metric) -> str:
    """Return how the network was quantised, and the accuracies that decided it."""
    if final.quantizers is None:
        return f"Not quantised; validation {metric.label} {final.history[-1].validation:.4f}."
    return summarise(final, metric)


def header_of(metric: Metric) -> tuple[str, ...]:
    """Return the head of the result table."""
    return ("network", f"{metric.label} (95 % CI)", "p50 ms", "p99 wall ms", "size MB", "params k", "MACs M", f"{metric.label} is of")


def row_cells(row: Row, metric: Metric) -> list[str]:
    """Return one line of the result table."""
    a = row.accuracy
    return [
        row.label,
        f"{metric.written(a.value)} ({metric.span(a.low, a.high, '-')})" if a is not None else "no reference",
        _milliseconds(row.latency, "p50"),
        _milliseconds(row.latency, "p99"),
        f"{row.size_bytes / 1e6:.2f}",
        f"{row.parameters / 1e3:.0f}",
        f"{row.macs / 1e6:.1f}",
        a.part if a is not None else "-",
    ]


def gate_lines(gates: tuple[Gate, ...]) -> str:
    """Return a list of the gates with their verdicts."""
    return "\n".join(f"- {gate.sentence}" for gate in gates)


def figure_notes(measurement: Measurement, engine: Engine, target: Target, timing: FreshTiming | None, table_source: str) -> tuple[str, str, str]:
    """Return why this precision ships, and how accuracy and latency were measured.

    Args:
        measurement: The engines' figures.
        engine: The engine that ships.
        target: What it was built for.
        timing: The timing that decides the gates of the budget; None if the device is not here.
        table_source: Where the latency table is from.
    """
    shown, is_compared = measurement.shipped_row.judged, has_reference(measurement.rows)
    accuracy = (
        f"Accuracy: measured on {shown.n} test images for the {'dense and the ' if is_compared else ''}shipped engine (run with: {shown.measured_by}); "
        "nothing was trained or chosen with these images. Every other row is measured on the validation images."
    )
    if not is_compared:
        accuracy += f" There is no reference: {NO_REFERENCE}. The dense network was timed with untrained weights."
    precision = f"Precision: {measurement.reason}.{_float_kernels(measurement)}{_sparsity(engine, target)}"
    latencies = {row.label: row.latency for row in measurement.rows if row.latency is not None}
    shipped = measurement.shipped_row.latency
    assert shipped is not None
    if shipped.source == "estimated":
        source = f"a latency table {table_source}" if shipped.clock == TABLE_ELSEWHERE else "published rates (roofline)"
        return precision, accuracy, f"Latency: ESTIMATED from {source}. The engine was built, not run: this machine has no {target.device.name}."
    spread = ", ".join(f"{name} {latency.cv:.1%}{'' if latency.stable else ' UNSTABLE'}" for name, latency in latencies.items())
    where = f"{engine.info.device}, {engine.info.runtime} {engine.info.runtime_version}, batch {target.batch}, {target.threads} thread(s)"
    clock = f"clock {shipped.clock} (engine wall p50 {shipped.wall_p50:.3f} ms, wall/CPU {measurement.contention:.2f})"
    latency = f"Latency: measured on {where}, engines in turns, n = {shipped.n}, {clock}, p99 is wall time; CV (std / mean) {spread} (limit 2.5 %)."
    if timing is not None:
        latency += f" The verdict: {timing.fresh.sentence}."
        latency += f" Beside latency: {timing.footprint.sentence}." if timing.footprint is not None else ""
    condition = describe_conditions(timing.fresh.conditions if timing is not None else ())
    latency += f" The device meanwhile: {condition}." if condition else ""
    if measurement.device is not None:
        latency += f" On the device: {measurement.device.sentence}."
    return precision, accuracy, latency


def _simplification(engine: Engine) -> str:
    return f", as the exporter wrote it, since onnxsim's was rejected: {engine.not_simplified}" if engine.not_simplified else ""


def _sparsity(engine: Engine, target: Target) -> str:
    """Return how many layers have 2:4 sparse weights; empty if the library was not told to look for them."""
    if not target.sparse_weights:
        return ""
    sparse, eligible = engine.coverage["sparse_layers"], engine.coverage["sparse_eligible_layers"]
    return f" 2:4 sparsity: {sparse} of the {eligible} layers that could run as sparse have such weights; the others run as dense."


def _float_kernels(measurement: Measurement) -> str:
    """Return which kernels of an INT8 engine are float, with their share of the run time; empty if no profile was made."""
    floats = [kernel for kernel in measurement.kernels if kernel.precision == "float"]
    if measurement.shipped != "int8" or not measurement.kernels:
        return ""
    named = ", ".join(f"{kernel.count} {kernel.op} {kernel.share:.0%}" for kernel in floats)
    return f" {sum(kernel.share for kernel in floats):.0%} of the run time is still float: {named}." if floats else " No kernel is float."


def _milliseconds(latency: Latency | None, percentile: str) -> str:
    value = getattr(latency, percentile) if latency is not None else None
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({latency.mark})" if latency is not None and latency.mark else "")
