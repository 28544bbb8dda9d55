"""Finds the artifacts in a store that no package needs, and frees them.

A package needs every artifact of its lineage: the trunk's segments, the timings, the data. Freeing is crash-safe: an artifact is first
renamed, which removes it from the store at once, and then deleted. Artifacts are freed before those that they were made from.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.finished import FINISHED, recall
from bonsai.stages.store.lineage import parents_of
from bonsai.stages.store.locks import hold, is_held
from bonsai.stages.store.manifest import MANIFEST, SPARE, read_either_manifest
from bonsai.stages.store.store import DAMAGED, IN_USE, LOCKS, WORK

PACKAGES = "packages"
TRASH = ".trash"
DAY = 24 * 3600


class Waste(Record):
    """Something to free.

    Attributes:
        path: Relative to the store: ``stage/key``, a stopped stage's ``.work/stage-key``, what was set aside as damaged
            (``.damaged/stage-key``), the record of a finished run (``.finished/key.json``), or what an earlier freeing left. A ``stage/key``
            without a readable manifest is no artifact.
        size: Bytes.
        age: Days since it was finished, or last written to.
    """

    path: str
    size: int
    age: float


class Inventory(Record):
    """A store, split.

    Attributes:
        waste: Newest first, so that nothing is left whose origin is gone.
        kept: Number of artifacts that a package needs, or that are too young to free.
        kept_size: Their bytes.
        packages: Names of the packages.
    """

    waste: tuple[Waste, ...]
    kept: int
    kept_size: int
    packages: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that can be freed."""
        return sum(item.size for item in self.waste)


def take_inventory(root: Path, *, keep_days: float, packages: Iterable[Path] = ()) -> Inventory:
    """Find what no package needs.

    Args:
        root: The store.
        keep_days: Younger artifacts stay, and what they were made from.
        packages: Folders of packages outside the store's own ``packages``.

    Raises:
        ConfigError: The folder is no store, or a package's manifest cannot be read, so that its needs are not known.
    """
    if not (root / WORK).is_dir() or not (root / LOCKS).is_dir():
        raise ConfigError(
            describe("no store of artifacts", given=root, allowed="a folder that `bonsai run` wrote its artifacts to", fix="name it: --store DIR")
        )
    now, folders = time.time(), _artifacts(root)
    ages = {address: (now - _manifest_file(folder).stat().st_mtime) / DAY for address, folder in folders.items()}
    roots, names = _needed(root, folders, packages)
    kept = _with_origins(roots | {address for address, age in ages.items() if age < keep_days}, folders)
    waste = [Waste(path=address, size=_size(folder), age=ages[address]) for address, folder in folders.items() if address not in kept]
    waste += _forgotten(root, kept, now)
    remains = [folder for place in (WORK, TRASH, DAMAGED) for folder in (sorted((root / place).iterdir()) if (root / place).is_dir() else [])]
    for folder in remains + _unfinished(root, folders):
        place = folder.parent.name
        if place == WORK and is_held(root / LOCKS / folder.name):
            continue
        age = (now - max(file.lstat().st_mtime for file in (folder, *folder.rglob("*")))) / DAY
        if place == TRASH or age >= keep_days:
            waste.append(Waste(path=f"{place}/{folder.name}", size=_size(folder), age=age))
    kept_size = sum(_size(folders[address]) for address in kept)
    return Inventory(waste=tuple(sorted(waste, key=lambda item: item.age)), kept=len(kept), kept_size=kept_size, packages=tuple(sorted(names)))


def free(root: Path, *, keep_days: float, packages: Iterable[Path] = ()) -> Inventory:
    """Free what `take_inventory` finds, looked up anew while no run can start, and return it.

    Raises:
        ConfigError: A run is working in the store.
    """
    try:
        with hold(root / LOCKS / IN_USE):
            inventory = take_inventory(root, keep_days=keep_days, packages=packages)
            trash = root / TRASH
            trash.mkdir(exist_ok=True)
            for item in sorted(inventory.waste, key=lambda item: not item.path.startswith(f"{TRASH}/")):  # what was being freed bears names that come again
                _delete(root / item.path, trash)
            trash.rmdir()
    except BlockingIOError:
        fix = "wait until it has ended, or stop it: it goes on from its last epoch"
        raise ConfigError(describe("a run is working in this store", given=root, allowed="a store that nobody uses now", fix=fix)) from None
    return inventory


def _forgotten(root: Path, kept: set[str], now: float) -> list[Waste]:
    """Return the records of finished runs that lead nowhere once all but `kept` is freed."""
    files = sorted((root / FINISHED).iterdir()) if (root / FINISHED).is_dir() else []
    runs = {file: recall(root, file.stem) for file in files}
    gone = [file for file, run in runs.items() if run is None or not run.artifacts.keys() <= kept]
    return [Waste(path=f"{FINISHED}/{file.name}", size=file.stat().st_size, age=(now - file.stat().st_mtime) / DAY) for file in gone]


def _delete(path: Path, trash: Path) -> None:
    if path.parent != trash:
        away = trash / f"{path.parent.name}-{path.name}"
        os.replace(path, away)
        path = away
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _artifacts(root: Path) -> dict[str, Path]:
    return {f"{folder.parent.name}/{folder.name}": folder for folder in _candidates(root) if _is_artifact(folder)}


def _unfinished(root: Path, artifacts: dict[str, Path]) -> list[Path]:
    """Return what stands under an artifact's name, as the lock of that name tells, without a manifest that can be read."""
    others = [folder for folder in _candidates(root) if f"{folder.parent.name}/{folder.name}" not in artifacts]
    return [folder for folder in others if (root / LOCKS / f"{folder.parent.name}-{folder.name}").is_file()]


def _candidates(root: Path) -> list[Path]:
    stages = [stage for stage in sorted(root.iterdir()) if stage.is_dir() and not stage.name.startswith(".") and stage.name != PACKAGES]
    return [folder for stage in stages for folder in sorted(stage.iterdir())]


def _is_artifact(folder: Path) -> bool:
    """Return whether its manifest says that it is what lies there: a store may be given a folder that holds other things too."""
    try:
        manifest = read_either_manifest(folder)
    except ArtifactDamaged:
        return False
    return (manifest.stage, manifest.key) == (folder.parent.name, folder.name)


def _manifest_file(folder: Path) -> Path:
    return next(file for file in (folder / MANIFEST, folder / SPARE / MANIFEST) if file.is_file())


def _needed(root: Path, folders: dict[str, Path], packages: Iterable[Path]) -> tuple[set[str], set[str]]:
    """Return what the packages were made from, with the artifacts that they are copies of, and the packages' names."""
    own = [folder for folder in sorted((root / PACKAGES).iterdir()) if (folder / MANIFEST).is_file()] if (root / PACKAGES).is_dir() else []
    needed, names, sums = set[str](), set[str](), set[str]()
    for folder in (*own, *packages):
        try:
            facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            needed |= {ancestor["artifact"] for ancestor in facts["lineage"]}
            names.add(facts["name"])
            sums.add(sha256_file(folder / MANIFEST))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                describe(
                    f"{folder}: what this package needs cannot be read, so nothing is freed",
                    given=f"{type(error).__name__}: {error}",
                    allowed="a package with its manifest",
                    fix="delete the package if it is broken, or name another folder",
                )
            ) from error
    copies = {address for address, folder in folders.items() if address.startswith("package/") and sha256_file(folder / "package" / MANIFEST) in sums}
    return needed | copies, names


def _with_origins(addresses: set[str], folders: dict[str, Path]) -> set[str]:
    waiting, found = [address for address in addresses if address in folders], set[str]()
    while waiting:
        address = waiting.pop()
        if address not in found:
            found.add(address)
            waiting += [parent for parent in parents_of(folders[address]) if parent in folders]
    return found


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
