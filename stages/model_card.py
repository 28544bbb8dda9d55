"""The model card of a package, in Markdown."""

from profiles.schema import HardwareProfile
from stages.artifacts import Checkpoint, Dataset, Engine, Latency
from stages.decisions import Decisions
from stages.measurements import Gate, Measurement, Row
from stages.training.batches import MEAN, STD

HEADER = ("network", "top-1 (95 % CI)", "p50 ms", "p99 ms", "size MB", "params k", "MACs M")


def write_model_card(
    name: str, engine: Engine, measurement: Measurement, quantised: Checkpoint, dataset: Dataset, profile: HardwareProfile, decisions: Decisions
) -> str:
    """Return what someone who receives the package must know."""
    passed = all(gate.passed for gate in measurement.gates)
    widths = "\n".join(f"| {g} | {dense} | {decisions.fit.widths[g]} |" for g, dense in decisions.dense_widths.items())
    shape = "x".join(str(s) for s in engine.image_shape)
    when = f"check {decisions.trigger.check}" + ("" if decisions.trigger.stable else ", the latest allowed: EPI had not settled")
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in map(row_cells, measurement.rows))
    return f"""# {name}

{"All gates are met." if passed else "**A gate is missed.**"} Budget: {profile.budget}.

{gate_lines(measurement.gates)}

| {" | ".join(HEADER)} |
|{"---|" * len(HEADER)}
{rows}

Accuracy: {measurement.test_images} test images that no training step saw; of the engine, measured by {measurement.rows[-1].accuracy.measured_by}.
Latency: {latency_sentence(measurement, engine)}

## Use
Input `input`: float32 (batch, {shape.replace("x", ", ")}), pixels / 255, minus {MEAN}, over {STD}. Output `logits`: float32 (batch, {len(dataset.classes)}).
Classes: {", ".join(dataset.classes)}.
Engine `{engine.file}` for {engine.runtime} {engine.info.runtime_version} on {profile.target.device.name}; `model.onnx` is what it was built from.

## How it was made
Pruned at {when} of the dense training; at the end validation top-1 was {quantised.history[-1].validation_top1:.4f}. Latency table: {decisions.table_source}.

| group | dense | kept |
|---|---|---|
{widths}

## Licences
Data: {dataset.licence}. Weights: trained from scratch on these data alone.
"""


def row_cells(row: Row) -> list[str]:
    """Return one line of the result table."""
    a = row.accuracy
    return [
        row.name,
        f"{a.top1:.2%} ({a.low * 100:.1f}-{a.high * 100:.1f})",
        _milliseconds(row.latency, "p50"),
        _milliseconds(row.latency, "p99"),
        f"{row.size_bytes / 1e6:.2f}",
        f"{row.parameters / 1e3:.0f}",
        f"{row.macs / 1e6:.1f}",
    ]


def gate_lines(gates: tuple[Gate, ...]) -> str:
    """Return a list of the gates, met or missed."""
    return "\n".join(f"- {gate.sentence}" for gate in gates)


def latency_sentence(measurement: Measurement, engine: Engine) -> str:
    """Return how the latency was found, in one sentence."""
    latency = measurement.rows[-1].latency
    assert latency is not None
    if latency.source == "estimated":
        return f"*estimated* from published rates (roofline); the engine was built, not run: {engine.info.device} is not in the machine that built it."
    spread = "stable" if latency.stable else "UNSTABLE"
    return (
        f"measured on {engine.info.device}, {engine.info.runtime} {engine.info.runtime_version}, dense and engine in turns, n = {latency.n} each, "
        f"clock {latency.clock}, CV {latency.cv:.1%} ({spread}: limit 2.5 %), wall p50 {latency.wall_p50:.3f} ms, contention {measurement.contention:.2f}."
    )


def _milliseconds(latency: Latency | None, percentile: str) -> str:
    value = getattr(latency, percentile) if latency is not None else None
    if value is None:
        return "-"
    return f"{value:.3f}" + (" (est.)" if latency is not None and latency.source == "estimated" else "")
