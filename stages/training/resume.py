"""A long stage's own training checkpoints, so that a killed run continues from the last."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.training.progress import say

NEXT = "next.safetensors"
LAST = "last-{sha256}.safetensors"
"""Pattern for the names of checkpoints. A name contains the hash of its file, so that a changed file is noticed."""


def save_progress(folder: Path, parts: Mapping[str, Mapping[str, torch.Tensor]], facts: Mapping[str, Any]) -> None:
    """Write named sets of tensors and `facts` (JSON) as one file, published by one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _checkpoints(folder)
    tensors = {f"{part}/{name}": value.detach().cpu().contiguous() for part, named in parts.items() for name, value in named.items()}
    with written_plainly(folder / NEXT):
        save_file(tensors, folder / NEXT, metadata={"facts": json.dumps(facts)})
    last = folder / LAST.format(sha256=sha256_file(folder / NEXT))
    os.replace(folder / NEXT, last)
    for file in earlier:
        if file != last:
            file.unlink()


def load_progress(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]] | None:
    """Return what `save_progress` wrote last; None at a first start, or where what was written is damaged."""
    for file in _checkpoints(folder):
        if file.name == LAST.format(sha256=sha256_file(file)):
            return _read(file)
        say(f"training: the checkpoint {file.parent.parent.name}/{file.name} is damaged and is not used")
    return None


def _read(file: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(file, framework="pt") as stream:
        for key in stream.keys():  # noqa: SIM118  # safe_open is no mapping
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = stream.get_tensor(key)
        return parts, json.loads(stream.metadata()["facts"])


def _checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints, the newest first: a kill right after a rename leaves the one before too."""
    return sorted(folder.glob(LAST.format(sha256="*")), key=lambda file: file.stat().st_mtime_ns, reverse=True)
