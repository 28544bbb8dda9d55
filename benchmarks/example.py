"""One run of the shipped recipe on smaller images, told in figures: `docs/how-it-works.md`.

python benchmarks/example.py      # results/example.json; a few minutes
"""

import argparse
import json
import tempfile
from pathlib import Path

from pipeline import compress
from stages.delivery.contents import read_intact
from stages.manifest import MANIFEST, host_facts

RESULTS = Path(__file__).parent / "results" / "example.json"
RECIPE, PROFILE = "resnet-edge", "local-cpu"
OVERRIDES = {"data.options": {"size": 16}}


def main() -> None:
    """Run, or take from the store, and write what the figures need."""
    parser = argparse.ArgumentParser(description="One run of the shipped recipe")
    parser.add_argument("--store", type=Path, default=None, help="of a run that may have finished; a temporary folder otherwise")
    options = parser.parse_args()
    store = options.store or Path(tempfile.mkdtemp(prefix="example-"))
    (package,) = compress(RECIPE, PROFILE, OVERRIDES, store=store)
    manifest = read_intact(store / "packages" / package.name)
    final = next(ancestor.artifact for ancestor in manifest.lineage if ancestor.artifact.startswith(("quantize/", "recover/")))
    history = json.loads((store / final / MANIFEST).read_text())["record"]["history"]
    found = {
        "recipe": RECIPE,
        "profile": PROFILE,
        "overrides": OVERRIDES,
        "device": manifest.device.device,
        **host_facts(),
        **package.decisions.model_dump(mode="json", include={"trigger", "criterion", "dense_widths", "kept_widths", "attempts"}),
        "history": history,
        "rows": [row.model_dump(mode="json") for row in package.rows],
        "gates": [gate.model_dump(mode="json") for gate in package.gates],
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
