"""Traces the artifacts that an artifact was made from, back to the data."""

from pathlib import Path
from typing import Any

from bonsai.profiles.located_yaml import Record
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.manifest import read_either_manifest


class Ancestor(Record):
    """One artifact in a lineage; `made_from` names others by ``stage/key``, `tools` the versions it was made with."""

    artifact: str
    digest: str
    made_from: tuple[str, ...]
    finished: str
    seconds: float
    tools: dict[str, str]


class Lineage(Record):
    """Every artifact that went into a result, the result first."""

    ancestors: tuple[Ancestor, ...]


def trace_lineage(*results: Artifact) -> Lineage:
    """Follow the manifests from artifacts of one store to those they were made from: the first's whole, then what the others add.

    Raises:
        ArtifactDamaged: A manifest and its spare copy are not as they were written.
    """
    root = results[0].folder.parent.parent
    roots, waiting, seen, found = [f"{result.folder.parent.name}/{result.folder.name}" for result in results], list[str](), set[str](), []
    while waiting or roots:
        waiting = waiting or [roots.pop(0)]
        address = waiting.pop(0)
        if address in seen:
            continue
        seen.add(address)
        manifest = read_either_manifest(root / address)
        parents = tuple(_addresses(manifest.inputs))
        found.append(
            Ancestor(
                artifact=address,
                digest=manifest.record["digest"],
                made_from=parents,
                finished=manifest.finished,
                seconds=manifest.seconds,
                tools=manifest.tools,
            )
        )
        waiting += parents
    return Lineage(ancestors=tuple(found))


def parents_of(folder: Path) -> tuple[str, ...]:
    """Return ``stage/key`` of what the artifact in a folder was made from.

    Raises:
        ArtifactDamaged: Its manifest and the spare copy are not as they were written.
    """
    return made_from(read_either_manifest(folder).inputs)


def made_from(inputs: Any) -> tuple[str, ...]:
    """Return ``stage/key`` of every artifact that a manifest's `inputs` name, each once."""
    return tuple(dict.fromkeys(_addresses(inputs)))


def _addresses(inputs: Any) -> list[str]:
    if isinstance(inputs, dict):
        return [inputs["artifact"]] if "artifact" in inputs else [a for value in inputs.values() for a in _addresses(value)]
    return [a for value in inputs for a in _addresses(value)] if isinstance(inputs, list) else []
