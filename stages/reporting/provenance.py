"""The provenance of a package: enough to make it again, and to check whether the result is the same."""

import json

from bonsai.stages.delivery.contents import REPORTS
from bonsai.stages.reporting.content import Listing, Part, Table
from bonsai.stages.reporting.evidence import Evidence

DIGITS = 12
"""Number of characters of a digest in the lineage, where the address is enough to find an artifact. Hashes of files are shown in full."""


def provenance_part(evidence: Evidence) -> Part:
    """Return device, tools, lineage, recipe, profile and hashes."""
    manifest = evidence.manifest
    seconds = sum(ancestor.seconds for ancestor in manifest.lineage)
    device = {**manifest.device.model_dump(), "present": "yes" if manifest.device.present else "no: built elsewhere"}
    return Part(
        title="Provenance",
        texts=(
            f"Made in {len(manifest.lineage)} artifacts, {seconds / 60:.1f} minutes of wall time in all. The engine needs {manifest.compatibility.sentence}.",
            "To check the package: sha256sum --check SHA256SUMS, and on the device: bonsai verify FOLDER.",
        ),
        tables=(
            Table(
                caption="Files of the package",
                headers=("file", "sha256"),
                rows=tuple((name, digest) for name, digest in manifest.files.items() if name not in REPORTS),
            ),
            Table(caption="Device that built the engine", headers=("fact", "value"), rows=tuple((name, _plain(value)) for name, value in device.items())),
            Table(caption="Tools", headers=("tool", "version"), rows=tuple(manifest.tools.items())),
            Table(
                caption="Lineage: every artifact that the engine was made from, the newest first",
                headers=("artifact", "digest", "seconds", "finished", "made from"),
                rows=tuple((a.artifact, a.digest[:DIGITS], f"{a.seconds:.1f}", a.finished, ", ".join(a.made_from) or "-") for a in manifest.lineage),
                folded=True,
            ),
        ),
        listings=(
            Listing(title="Recipe", text=json.dumps(manifest.recipe, indent=2)),
            Listing(title="Profile", text=manifest.profile.model_dump_json(indent=2)),
        ),
    )


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
