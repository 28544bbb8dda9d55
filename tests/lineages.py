"""Manifests of a package of the tiny network, and of what it was made from."""

import json
from pathlib import Path

from bonsai.stages.store.manifest import MANIFEST

TINY = "tiny--tiny-cpu"


def manifest_of(store: Path, name: str = TINY) -> dict[str, object]:
    return dict(json.loads((store / "packages" / name / MANIFEST).read_text()))


def folder_of(store: Path, stage: str) -> str:
    """Return the folder of the newest ancestor of the package that a stage made."""
    lineage = manifest_of(store)["lineage"]
    return next(a["artifact"] for a in lineage if a["artifact"].startswith(f"{stage}/"))


def ancestor(store: Path, stage: str) -> dict[str, dict[str, object]]:
    return dict(json.loads((store / folder_of(store, stage) / MANIFEST).read_text()))
