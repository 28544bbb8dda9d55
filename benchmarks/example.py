"""One run of the shipped recipe, told in figures: `docs/how-it-works.md`.

python benchmarks/example.py      # results/example.json; five minutes on two quiet cores
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bonsai import compress
from bonsai.stages.store.manifest import MANIFEST

RESULTS = Path(__file__).parent / "results" / "example.json"
RECIPE, PROFILE = "resnet-edge", "local-cpu"


def main() -> None:
    """Run, or take from the store, and write what the figures need."""
    parser = argparse.ArgumentParser(description="One run of the shipped recipe")
    parser.add_argument("--store", type=Path, default=None, help="of a run that may have finished; a temporary folder otherwise")
    options = parser.parse_args()
    store = options.store or Path(tempfile.mkdtemp(prefix="example-"))
    (package,) = compress(RECIPE, PROFILE, store=store)
    RESULTS.write_text(json.dumps(tell(store, package.name), indent=1) + "\n")


def tell(store: Path, name: str) -> dict[str, Any]:
    """Return what the figures need of a finished package and of the network in it."""
    manifest = json.loads((store / "packages" / name / MANIFEST).read_text())
    final = next(made["artifact"] for made in manifest["lineage"] if made["artifact"].startswith(("quantize/", "recover/")))
    trained = json.loads((store / final / MANIFEST).read_text())
    return {
        "recipe": RECIPE,
        "profile": PROFILE,
        "device": manifest["device"]["device"],
        "finished": trained["finished"],
        "tools": manifest["tools"],
        **{key: manifest["decisions"][key] for key in ("trigger", "criterion", "dense_widths", "kept_widths", "attempts")},
        "history": trained["record"]["history"],
        "rows": manifest["metrics"],
        "gates": manifest["gates"],
    }


if __name__ == "__main__":
    main()
