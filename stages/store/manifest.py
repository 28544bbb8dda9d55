"""The manifest of an artifact: written last, so that its presence means "finished"."""

import errno
import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from bonsai.profiles.errors import describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.store.artifact import sha256_file, sha256_text

MANIFEST = "manifest.json"
SPARE = ".spare"
"""Folder within an artifact with a copy of its manifest, and of all its files where they were measured: these cannot be made again to the same bytes."""
UNREADABLE = frozenset({errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
"""Errors that mean a file is damaged or is not a file. A lack of permission or memory says nothing about the file."""
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
    """Describes an artifact: its files, its inputs, and the tools that made it.

    Attributes:
        files: sha256 by path relative to the folder; the manifest itself is not listed.
        inputs: Artifacts by address and digest, configs whole.
        figures: The main figures of the result, as the stage words them; empty in manifests of earlier versions.
        seconds: Wall time of the stage's last run.
        seal: sha256 of everything else here; empty in manifests of earlier versions.
    """

    schema_version: int = 1
    stage: str
    version: int
    key: str
    inputs: dict[str, Any]
    files: dict[str, str]
    record: dict[str, Any]
    figures: str = ""
    seconds: float
    finished: str
    host: str
    tools: dict[str, str]
    seal: str = ""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest with its seal."""
    sealed = manifest.model_copy(update={"seal": _seal_of(json.loads(manifest.model_dump_json()))})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest as it was written; the artifact's files are not looked at.

    Raises:
        ArtifactDamaged: It is missing, cannot be read, or was changed since.
        OSError: This process may not read it.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(facts)
        if manifest.seal and manifest.seal != _seal_of(facts):
            problem = f"{MANIFEST} was changed after it was written"
        elif manifest.record.get("digest") != digest_of(manifest.record, manifest.files):
            problem = f"{MANIFEST} holds another record, or other hashes, than its digest was made from"
        else:
            return manifest
    except FileNotFoundError:
        problem = f"{MANIFEST} is missing"
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        problem = f"{MANIFEST} cannot be read ({error.strerror})"
    except ValidationError as error:
        problem = f"{MANIFEST} cannot be read ({error.error_count()} of its fields are not valid)"
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or nested without end
        problem = f"{MANIFEST} cannot be read ({error})"
    raise ArtifactDamaged(_damage(folder, problem))


def read_either_manifest(folder: Path) -> Manifest:
    """Read a manifest, or its spare copy where it was damaged since.

    Raises:
        ArtifactDamaged: Neither is as it was written.
    """
    try:
        return read_manifest(folder)
    except ArtifactDamaged:
        with suppress(ArtifactDamaged):
            return read_manifest(folder / SPARE)
        raise


def require_intact(folder: Path) -> Manifest:
    """Return an artifact's manifest once every file of the artifact was hashed.

    Raises:
        ArtifactDamaged: The manifest is not as it was written, or a file is gone, differs, or is not listed.
    """
    manifest = read_manifest(folder)
    differing = differences(folder, manifest)
    if differing:
        raise ArtifactDamaged(_damage(folder, ", ".join(differing)))
    return manifest


def differences(folder: Path, manifest: Manifest) -> list[str]:
    """Return in words which files of an artifact are not what its manifest says."""
    found = []
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            found.append(f"{name} is gone although the manifest lists it")
        elif not has_hash(folder / name, digest):
            found.append(f"{name} differs from its hash in the manifest")
    return found + [f"{name} is not listed in the manifest" for name in list_files(folder) if name not in manifest.files]


def has_hash(file: Path, digest: str) -> bool:
    """Return whether a file has the bytes that its sha256 says; one that the disk cannot read any more has not.

    Raises:
        OSError: This process may not read it.
    """
    try:
        return sha256_file(file) == digest
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        return False


def digest_of(record: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Return an artifact's digest: sha256 over its record, without digest and key, and the hashes of its files."""
    content = to_json({name: value for name, value in record.items() if name not in ("digest", "key")}).decode()
    return sha256_text(json.dumps([content, sorted(files.items())]))


def collect_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of an artifact, by relative path."""
    return {name: sha256_file(folder / name) for name in list_files(folder)}


def list_files(folder: Path) -> list[str]:
    """Return every file of an artifact by its relative path: not its own manifest, and nothing hidden at its top."""
    return sorted(name for name in (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()) if name != MANIFEST and name[0] != ".")


def _seal_of(facts: Mapping[str, Any]) -> str:
    return sha256_text(json.dumps({name: value for name, value in facts.items() if name != "seal"}, sort_keys=True))


def _damage(folder: Path, problem: str) -> str:
    return describe(
        f"{folder.parent.name}/{folder.name} is damaged: {problem}",
        given=folder,
        allowed="the files as they were when the stage had finished",
        fix="repeat the `bonsai run` that made it: what is damaged is set aside and made again",
    )


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
