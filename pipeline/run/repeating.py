"""A finished run that is repeated: answered without torch, where all that entered it and all that it used is as it was.

The record of a run is found by a digest of its recipe and profiles, the files that they name, the devices, every installed package and Bonsai's own
code. Every artifact that the run used is hashed then, as if its stages were looked up. Where anything differs, the run goes its ordinary way.
"""

import json
import logging
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.publish import publish
from bonsai.profiles.schema import HardwareProfile
from bonsai.profiles.table_names import find_table
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.reference import runtime_here
from bonsai.stages.data.registry import source_digest
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.imports.contents import digest_of, files_at, keep_hashes
from bonsai.stages.imports.user_code import BONSAI
from bonsai.stages.networks.config import RECIPE
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.store.artifact import MOMENTS, Artifact, sha256_file, sha256_text
from bonsai.stages.store.finished import FinishedRun, is_whole, recall, remember
from bonsai.stages.store.store import HASHES, Step, Store, load_artifact, require_writable_folder
from bonsai.stages.training.progress import logger, say

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
WARNING = "warning:"
"""How lines of progress begin that a user should heed."""


def key_of(recipe: Recipe, profiles: Sequence[HardwareProfile]) -> str | None:
    """Return the digest of all that enters a run, or None for a run that has to be looked up stage by stage.

    That is a run with code of the user's own, which may read files, and import modules, that nobody has declared; and one that starts with what another
    run left in the store.

    Raises:
        BonsaiError: An engine of a profile cannot be built here, or files cannot be read.
    """
    files = [Path(file) for profile in profiles for file in (*map(find_table, profile.tables), profile.target.timing_cache) if file is not None]
    files += [Path(recipe.model.weights_file)] if recipe.model.weights_file else []
    of_the_store = (recipe.model.weights or "").startswith(RECIPE)
    if ":" in recipe.model.name or ":" in recipe.data.name or of_the_store or not all(file.is_file() for file in files):
        return None
    devices = [device_of(variant.target).describe(variant.target) for profile in profiles for variant in profile.variants()]
    code = {f"{room.name}/{name}": file for room in BONSAI for name, file in files_at(room, "bonsai").items()}
    facts = {
        "records": [record.model_dump_json() for record in (recipe, *profiles, *devices)],
        "files": [source_digest(recipe.data), *(sha256_file(file) for file in files)],
        "code": digest_of(code, "bonsai"),
        "packages": _installed(),
        "machine": [sys.version, platform.platform(), runtime_here()],
    }
    return sha256_text(json.dumps(facts))


def find_finished(recipe: Recipe, profiles: Sequence[HardwareProfile], *, store: Path, out: Path | None) -> tuple[Package, ...] | None:
    """Publish a finished run's packages again and return them, or None where it has to be looked up stage by stage, or to be run.

    Args:
        recipe: What to compress.
        profiles: For what.
        store: Folder of the artifacts.
        out: Folder of the packages; ``<store>/packages`` if None.

    Raises:
        BonsaiError: As for `key_of`, or the folders cannot be written to.
    """
    keep_hashes(store / HASHES)
    key = key_of(recipe, profiles)
    run = recall(store, key) if key is not None else None
    if run is None:
        return None
    packages = out or store / "packages"
    require_writable_folder(store, "--store")
    require_writable_folder(packages, "--out")
    kept = Store(store)
    with kept.in_use():
        if not is_whole(kept.root, run.artifacts) or _timed_since(kept, run):
            return None
        found = tuple(load_artifact(Package, kept.root / address) for address in run.packages)
        for package in found:
            publish(package, packages)
    for warning in run.warnings:
        say(warning)
    say(f"finished already: all files of the {len(run.artifacts)} artifacts behind this result are as they were")
    return found


class Notes:
    """Notes what a run uses of the store, so that the same run can be found again.

    Args:
        recipe: What is compressed.
        profiles: For what.
        step: Runs one stage.
    """

    def __init__(self, recipe: Recipe, profiles: Sequence[HardwareProfile], step: Step) -> None:
        self._key = key_of(recipe, profiles)
        self._of, self._step = (recipe, profiles), step
        self._artifacts: dict[str, str] = {}

    def step(self, stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Run a stage, and note its artifact; moments are left out, for nobody looks at them where all that follows is finished."""
        artifact = self._step(stage, **inputs)
        if artifact.folder.parent.name != MOMENTS:
            self._artifacts[_address(artifact)] = artifact.digest
        return artifact

    def keep(self, store: Path, packages: Sequence[Package], warnings: Sequence[str]) -> None:
        """Write down what the run used, unless code or files were changed meanwhile, or the run is none that can be found again.

        Args:
            store: Folder of the artifacts.
            packages: What the run ended with.
            warnings: What it told its user to heed.
        """
        heard = logger.isEnabledFor(logging.INFO)  # otherwise its warnings are not known
        if self._key is None or not heard or self._key != key_of(*self._of):
            return
        try:
            remember(store, FinishedRun(key=self._key, packages=tuple(map(_address, packages)), artifacts=self._artifacts, warnings=tuple(warnings)))
        except OSError as error:  # the packages are there
            say(f"the run is looked up stage by stage where it is repeated: {error}")


@contextmanager
def warnings_of_run() -> Iterator[list[str]]:
    """Collect the warnings among the lines of progress while the block runs."""
    lines = _Warnings()
    logger.addHandler(lines)
    try:
        yield lines.said
    finally:
        logger.removeHandler(lines)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(WARNING):
            self.said.append(record.getMessage())


def _address(artifact: Artifact) -> str:
    return f"{artifact.folder.parent.name}/{artifact.folder.name}"


def _timed_since(store: Store, run: FinishedRun) -> bool:
    """Return whether an engine of the run was timed again since: the verdict is then the newest timing's."""
    timings = {f"{time_engine.__name__}/{manifest.key}": dict(manifest.inputs) for manifest in store.manifests(time_engine)}
    numbers = {address: inputs.pop("repetition", 0) for address, inputs in timings.items()}
    used = timings.keys() & run.artifacts.keys()
    return any(timings[later] == timings[address] and numbers[later] > numbers[address] for address in used for later in timings)


def _installed() -> list[str]:
    """Return the name and version of every package that Python finds, as the folder of its metadata has them."""
    return sorted(folder.name for place in sys.path for folder in Path(place).glob("*.*-info"))
