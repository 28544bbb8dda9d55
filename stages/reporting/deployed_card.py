"""The model card of a package that `bonsai.deploy` made, in Markdown."""

from bonsai.stages.delivery.deployed import Closeness, DeployedManifest, NetworkFacts, ScoredRow
from bonsai.stages.delivery.licences import BONSAI, RUNTIMES
from bonsai.stages.delivery.packed_facts import PackagedInput
from bonsai.stages.graph.names import INPUT
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import unmet
from bonsai.stages.reporting.model_card import gate_lines
from bonsai.stages.texts import markdown

PACKED = " In `golden.safetensors` the inputs of a sample are flattened and joined in this order, float32 (n, total)."
HEADER = ("", "precision", "score (95 % interval)", "samples", "p50 ms", "p99 wall ms", "size MB", "params k", "MACs M")


def write_deployed_card(manifest: DeployedManifest) -> str:
    """Return the card: verdict, figures, how to use the engine, how it was made."""
    failing = unmet(manifest.gates)
    engine = manifest.engine
    inputs = manifest.inputs or (PackagedInput(name=INPUT, shape=engine.image_shape),)
    taken = "\n".join(f"- Input `{each.name}`: float32 (batch, {', '.join(map(str, each.shape))})" for each in inputs)
    rows = "\n".join(f"| {' | '.join(_cells(row))} |" for row in manifest.rows)
    outputs = "\n".join(f"- Output `{output.name}`: float32 (batch, {', '.join(map(str, output.shape))})" for output in manifest.outputs)
    warnings = "".join(f" **Warning: {markdown(warning)}**" for warning in manifest.warnings)
    score = "" if manifest.score == "score" else f", {markdown(manifest.score)}"
    better = "higher" if manifest.higher_is_better else "lower"
    return f"""# {manifest.name}

{f"**{failing}.**" if failing else "All gates are met."}{warnings} Budget: {manifest.profile.asked}.

{gate_lines(manifest.gates)}

| {" | ".join(HEADER)} |
|{"---|" * len(HEADER)}
{rows}

The maker's own function computes the score{score}; {better} is better.
{chr(10).join(manifest.notes)}

## Use
{taken}
{outputs}

Prepare the input{"s" if len(inputs) > 1 else ""} as the network was trained: this package does not say how.{PACKED if len(inputs) > 1 else ""}

The engine `{engine.file}` was built with {engine.runtime} {manifest.device.runtime_version} for {manifest.device.device}.
It needs {manifest.compatibility.sentence}.
`{engine.graph}` is portable; the engine was built from it. After every copy run `sha256sum --check SHA256SUMS`, and on the device
`bonsai verify FOLDER`. That compares files, machine and runtime with the manifest, and the engine's outputs with `golden.safetensors`.

## How it was made
{_network(manifest.network, "The network")}
{_network(manifest.reference, "The dense reference") if manifest.reference is not None else "No dense reference was given."}
{_parity(manifest.graph_parity, f"`{engine.graph}`", manifest.samples)}
{_parity(manifest.engine_parity, "The engine", manifest.samples)}

## Licences
- Weights and golden samples: under which licence they are, Bonsai cannot know.
- Runtime that the engine needs, not in the package: {engine.runtime}, {RUNTIMES.get(engine.runtime, "see its own licence")}
- Bonsai, which made the package and is not in it: {BONSAI}
"""


def _cells(row: ScoredRow) -> list[str]:
    score = f"{row.score:.6g}" + (f" ({row.low:.6g} to {row.high:.6g})" if row.low is not None else " (no interval)")
    latency = [_milliseconds(row.latency, name) for name in ("p50", "p99")]
    size = "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}"
    return [row.what, row.precision, score, str(row.samples or "-"), *latency, size, f"{row.parameters / 1e3:.0f}", f"{row.macs / 1e6:.1f}"]


def _milliseconds(latency: Latency | None, percentile: str) -> str:
    value = getattr(latency, percentile) if latency is not None else None
    return "-" if value is None else f"{value:.3f}"


def _network(facts: NetworkFacts, what: str) -> str:
    quantised = facts.quantizers
    if quantised is None:
        how = "is float"
    else:
        kept = f", with {markdown(', '.join(quantised.kept_float))} left in float" if quantised.kept_float else ""
        how = f"simulates INT8 for runtimes of the family `{quantised.dialect}` with weights of {quantised.weight_bits} bits{kept}"
    return f"{what} is a `{facts.name}` and {how}. Its structure has the sha256 `{facts.structure[:16]}`, its weights have `{facts.weights[:16]}`."


def _parity(parity: tuple[Closeness, ...], what: str, samples: int) -> str:
    found = "; ".join(f"`{each.output}` by {each.mean:.2%} of its spread (largest {each.largest:.2%} of the largest value)" for each in parity)
    return f"{what} differs from torch on {samples} samples in the mean: {found}."
