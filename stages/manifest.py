"""The manifest of an artifact: written last, so that its presence means "finished"."""

import os
import platform
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from profiles.source import Record
from stages.artifacts import sha256_file

MANIFEST = "manifest.json"
TOOLS = (
    "bonsai-compress",
    "torch",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "prefect",
    "numpy",
    "scikit-learn",
)


class Manifest(Record):
    """What an artifact is, what it was made from, and with what.

    Attributes:
        files: sha256 by path relative to the folder; the manifest itself is not listed.
        inputs: Artifacts by address and digest, configs whole.
        seconds: Wall time of the stage's last run.
    """

    schema_version: int = 1
    stage: str
    version: int
    key: str
    inputs: dict[str, Any]
    files: dict[str, str]
    record: dict[str, Any]
    seconds: float
    finished: str
    host: str
    tools: dict[str, str]


def collect_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below `folder` but its own manifest, by relative path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in files}


def host_facts() -> dict[str, Any]:
    """Return when and where an artifact is finished, and with which versions of the tools."""
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "tools": tool_versions(),
    }


@cache
def tool_versions() -> dict[str, str]:
    """Return the versions of the tools that are installed."""
    versions = {}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions
