"""A long stage's own training checkpoints, so that a killed run continues from the last."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

LAST = "last.safetensors"


def save_progress(folder: Path, parts: Mapping[str, Mapping[str, torch.Tensor]], facts: Mapping[str, Any]) -> None:
    """Write named sets of tensors and `facts` (JSON) as one file, published by one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{part}/{name}": value.detach().cpu().contiguous() for part, named in parts.items() for name, value in named.items()}
    save_file(tensors, folder / "next.safetensors", metadata={"facts": json.dumps(facts)})
    os.replace(folder / "next.safetensors", folder / LAST)


def load_progress(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]] | None:
    """Return what `save_progress` wrote last, or None at a first start."""
    file = folder / LAST
    if not file.exists():
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(file, framework="pt") as stream:
        for key in stream.keys():  # noqa: SIM118  # safe_open is no mapping
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = stream.get_tensor(key)
        return parts, json.loads(stream.metadata()["facts"])
