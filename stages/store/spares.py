"""Spare copies within an artifact: of its manifest, and of all its files where they were measured."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.store.manifest import MANIFEST, SPARE, Manifest, has_hash, read_manifest


def keep_spare(folder: Path, *, whole: bool) -> None:
    """Copy the manifest of a finished folder, and all its files if `whole`, into its spare."""
    for name in (MANIFEST, *(read_manifest(folder).files if whole else ())):
        _copy(folder / name, folder / SPARE / name)


def restore(damaged: Path, work: Path) -> bool:
    """Put a damaged artifact together again from those of its files, and of their spare copies, that are as they were.

    Args:
        damaged: Folder of the artifact.
        work: Receives the artifact, spare included; only where all of it is found.

    Returns:
        Whether it was.
    """
    for manifest_file, manifest in _manifests(damaged):
        found = {name: _find(damaged, name, digest) for name, digest in manifest.files.items()}
        files = {name: file for name, file in found.items() if file is not None}
        if len(files) == len(found):
            for name, file in ((MANIFEST, manifest_file), *files.items()):
                _copy(file, work / name)
            had_files = any((damaged / SPARE / name).is_file() for name in files)
            keep_spare(work, whole=had_files)
            return True
    return False


def open_to_others(folder: Path) -> None:
    """Let others read what the umask lets them read of the manifest: what was written through a temporary file is its owner's alone."""
    plain = (folder / MANIFEST).stat().st_mode & 0o666
    for path in folder.rglob("*"):
        mode = path.stat().st_mode & 0o777
        wanted = mode | plain | ((plain & 0o444) >> 2 if path.is_dir() else 0)
        if mode != wanted:
            path.chmod(wanted)


def _manifests(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    for place in (folder, folder / SPARE):
        with suppress(ArtifactDamaged):
            yield place / MANIFEST, read_manifest(place)


def _find(folder: Path, name: str, digest: str) -> Path | None:
    """Return the file, or its spare copy, if one has the bytes that its hash says."""
    places = (folder / name, folder / SPARE / name)
    return next((file for file in places if file.is_file() and has_hash(file, digest)), None)


def _copy(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)
