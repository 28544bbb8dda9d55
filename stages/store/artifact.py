"""Artifacts, the results of stages on disk, and the fingerprints of a stage's inputs."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from bonsai.profiles.located_yaml import Record
from bonsai.stages.hashing import sha256_of

SETTLED_NS = 100_000_000
"""A hash is cached only if the file's times are older than this, because two writes within one tick of the file system's clock have the same times."""

_hashed: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}
"""Cached hashes, by device and inode: the file's size and times when it was hashed, and its sha256."""

MOMENTS = "moments"
"""Folder of a segment's moments: below its stage's `out_dir`, and then in the store, as ``moments/<key of the segment>``."""


class Artifact(Record):
    """A folder that a stage wrote. The record travels; the bytes stay in `folder`.

    Attributes:
        folder: Folder of the files; it is not part of the identity, so that a store can be moved.
        digest: sha256 of the record and of every file; the identity.
        key: Content address of the inputs: the artifact's name in the store.
    """

    folder: Path = Field(exclude=True)
    digest: str = ""
    key: str = ""


def fingerprint(value: Any) -> str:
    """Return the identity of a stage's input.

    Raises:
        TypeError: The value has no identity of its own, such as a path or a dict.
    """
    if isinstance(value, Artifact):
        return value.digest
    if isinstance(value, Record):
        return sha256_text(value.identity())
    if value is None or isinstance(value, str | int | float | bool):
        return sha256_text(json.dumps(value))
    if isinstance(value, tuple):
        return sha256_text(json.dumps([fingerprint(item) for item in value]))
    raise TypeError(f"a {type(value).__name__} cannot enter a stage: pass a record, an artifact, a number or a text")


def sha256_text(text: str) -> str:
    """Return the hexadecimal sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(file: Path) -> str:
    """Return the hexadecimal sha256 of a file; a file that has not changed since this process last hashed it is not read again."""
    with file.open("rb") as stream:
        seen = os.fstat(stream.fileno())
        state = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        known = _hashed.get((seen.st_dev, seen.st_ino))
        if known is not None and known[0] == state:
            return known[1]
        digest = sha256_of(stream)
    if time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > SETTLED_NS:
        _hashed[seen.st_dev, seen.st_ino] = (state, digest)
    return digest
