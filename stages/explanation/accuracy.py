"""How the accuracy fell from step to step, as a package tells."""

from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.delivery.deployed import DeployedManifest

LOST = 0.01
"""Smallest drop of the metric by pruning, relative to its best value, that is worth a word."""


def accuracy_steps(manifest: PackageManifest | DeployedManifest) -> tuple[str, ...]:
    """Return the accuracy of each network that was measured, in order, and which step cost most, one sentence each."""
    if isinstance(manifest, DeployedManifest):
        return tuple(f"{row.what} {row.precision}: {manifest.score} {row.score:.4g}" for row in manifest.rows)
    metric = manifest.metric
    found = [(row, row.validation or row.accuracy) for row in manifest.metrics]
    lines = [f"{row.label}: {metric.label} {metric.written(accuracy.value)} on the {accuracy.part} data" for row, accuracy in found if accuracy is not None]
    merits = [(row, metric.merit(each.value)) for row, each in found if each is not None and each.part == "validation"]
    dense = next((merit for row, merit in merits if row.network == "dense"), None)
    pruned = next((merit for row, merit in merits if row.network != "dense" and row.precision != "int8"), None)
    shipped = next((merit for row, merit in merits if row.shipped), None)
    if dense is not None and pruned is not None and shipped is not None and dense - pruned > max(LOST * abs(dense), pruned - shipped):
        lines.append("Pruning costs more than rounding: a wider floor keeps more channels (prune.floor, or prune.floors for some layers).")
    return tuple(lines)
