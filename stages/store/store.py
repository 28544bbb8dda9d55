"""Runs a stage once per distinct input and keeps what it wrote.

    store = Store(Path("artifacts"))
    dataset = store.run(prepare, data=DataConfig(name="digits"))

An artifact is built beside its final place, in ``.work``, and published by one rename after its
``manifest.json`` is written: what stands under ``<stage>/<key>`` is finished. A killed stage leaves its
work folder, and the next run continues from the training checkpoints it finds there.

Every file is hashed before it is used. An artifact that has changed or was never finished is moved to ``.damaged``. Then it is made again under
the same key, with the same bytes. Only measurements cannot be repeated exactly: they are restored from a spare copy.
"""

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, get_type_hints

from pydantic import ValidationError

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.backends.devices import device_among
from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.networks.checkpoint import Moments
from bonsai.stages.store.artifact import MOMENTS, Artifact, fingerprint, sha256_text
from bonsai.stages.store.locks import hold
from bonsai.stages.store.manifest import (
    MANIFEST,
    Manifest,
    collect_files,
    digest_of,
    host_facts,
    read_either_manifest,
    read_manifest,
    require_intact,
    write_manifest,
)
from bonsai.stages.store.spares import keep_spare, open_to_others, restore
from bonsai.stages.training.progress import say

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
LOCKS = ".locks"
WORK = ".work"
HASHES = ".hashes.json"
"""File with the hashes of files outside the store (`stages/imports/contents.py`)."""
DAMAGED = ".damaged"
"""Folder for damaged artifacts. They stay there for inspection until `bonsai gc` frees them."""
IN_USE = "in-use"
"""Lock: shared by every run that uses the store, held exclusively by `bonsai gc --delete`."""
RESUME = "resume"
"""Folder in `out_dir` for a stage's own training checkpoints; never published."""
version_of = cache(metadata.version)
"""Version of an installed distribution; read from disk once."""


class Step(Protocol):
    """Runs one stage: `Store.run` as it is, or wrapped in a Prefect task."""

    def __call__(self, stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Run `stage` on `inputs`, or return the result of an earlier run."""
        ...


def no_figures(_record: Artifact) -> str:
    """Return nothing, for a stage whose result has no figures to show."""
    return ""


def stage(
    *, version: int, timed: bool = False, tools: tuple[str, ...] = (), beside: str = "", figures: Callable[[Any], str] = no_figures
) -> Callable[[Callable[..., ArtifactT]], Callable[..., ArtifactT]]:
    """Mark a function as a stage. The stage's name is the function's. Its place in the order is where `pipeline/run/flow.py` calls it.

    Args:
        version: Raise it when the meaning of the result changes; older artifacts are then not reused.
        timed: Whether the stage measures latency. Only one such stage runs at a time on a device.
        tools: Distributions whose version is part of the key, because the result depends on it.
        beside: Name of an input. The result is a lost part of that artifact, made again, and gets the same key.
        figures: Returns the main figures of a result in a few words. They are written into its manifest for `bonsai show`, which imports no stage.
    """

    def mark(function: Callable[..., ArtifactT]) -> Callable[..., ArtifactT]:
        function.version = version  # type: ignore[attr-defined]  # read by Store alone
        function.timed = timed  # type: ignore[attr-defined]
        function.tools = tools  # type: ignore[attr-defined]
        function.beside = beside  # type: ignore[attr-defined]
        function.figures = figures  # type: ignore[attr-defined]
        return function

    return mark


class Store:
    """Artifacts in ``root/<stage>/<key>``."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep what is in the store from being freed while the block runs."""
        with hold(self.root / LOCKS / IN_USE, wait=True, shared=True):
            yield

    def key(self, function: Callable[..., Any], inputs: dict[str, Any]) -> str:
        """Return the content address of a stage's result.

        Raises:
            TypeError: An input has no identity (a bare path or dict).
        """
        if beside := _mark(function, "beside"):
            return str(inputs[beside].key)
        prints = {name: fingerprint(value) for name, value in inputs.items()}
        versions = {tool: version_of(tool) for tool in _mark(function, "tools")}
        return sha256_text(json.dumps([function.__name__, _mark(function, "version"), versions, prints], sort_keys=True))[:16]

    def find(self, function: Callable[..., ArtifactT], **inputs: Any) -> ArtifactT | None:
        """Return the finished artifact of this stage and these inputs, or None if it is missing or damaged. The store is not changed."""
        return self._find(function, self.root / function.__name__ / self.key(function, inputs))

    def run(self, function: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Return the stage's artifact. The stage runs only if the artifact is missing or damaged.

        Raises:
            ArtifactDamaged: An input was damaged since the run found it.
        """
        key = self.key(function, inputs)
        final = self.root / function.__name__ / key
        found = self._find(function, final)
        if found is not None:
            return found
        with hold(self.root / LOCKS / f"{function.__name__}-{key}", wait=True):
            problem = ""
            if os.path.lexists(final):
                try:
                    return self._load(function, final)  # another process finished it while this one waited
                except ArtifactDamaged as damage:
                    problem = f"{str(damage).splitlines()[0]}; it is set aside ({DAMAGED}/{self._set_aside(final).name})"
            work = self._work_folder(f"{function.__name__}-{key}")
            earlier = self._damaged(final)  # includes folders that a run moved away before it was killed
            if any(self._restored(function, folder, work) for folder in earlier):
                say(f"{problem or f'{function.__name__}/{key} was set aside as damaged'}; it is restored from its spare copy")
                self._finish(work, final)
                return self._load(function, final)
            if problem:
                say(f"{problem} and made again")
            for value in inputs.values():
                _require_intact_input(value)
            with device_among(inputs).hold() if is_timed(function) else nullcontext():
                started = time.time()
                record = function(work, **inputs)
            self._publish(function, record, inputs, key=key, work=work, final=final, seconds=time.time() - started, earlier=earlier)
        return self._load(function, final)

    def manifests(self, function: Callable[..., Any]) -> Iterator[Manifest]:
        """Return the manifests of all of a stage's artifacts, from the spare copy where one is damaged."""
        for folder in sorted((self.root / function.__name__).glob("*")):
            with suppress(ArtifactDamaged):
                yield read_either_manifest(folder)

    def _find(self, function: Callable[..., ArtifactT], folder: Path) -> ArtifactT | None:
        with suppress(ArtifactDamaged):
            return self._load(function, folder) if os.path.lexists(folder) else None
        return None

    def _load(self, function: Callable[..., ArtifactT], folder: Path) -> ArtifactT:
        kind = cast(type[ArtifactT], get_type_hints(function)["return"])
        return load_artifact(kind, folder)

    def _set_aside(self, folder: Path) -> Path:
        """Move a damaged folder away from its artifact's place; return where it is now."""
        name = f"{folder.parent.name}-{folder.name}"
        places = (self.root / DAMAGED / (f"{name}-{number}" if number else name) for number in itertools.count())
        aside = next(place for place in places if not os.path.lexists(place))
        aside.parent.mkdir(exist_ok=True)
        os.replace(folder, aside)
        os.utime(aside)  # `bonsai gc` counts its age from now
        return aside

    def _damaged(self, folder: Path) -> list[Path]:
        """Return the damaged folders of an artifact that were moved away, the latest first."""
        found = (self.root / DAMAGED).glob(f"{folder.parent.name}-{folder.name}*")
        return sorted(found, key=lambda aside: aside.lstat().st_mtime_ns, reverse=True)

    def _restored(self, function: Callable[..., ArtifactT], damaged: Path, work: Path) -> bool:
        if restore(damaged, work):
            with suppress(ArtifactDamaged):  # intact, but written by another version: it is made again
                self._load(function, work)
                return True
            self._work_folder(work.name)
        return False

    def _work_folder(self, name: str) -> Path:
        """Return the stage's work folder, emptied of all but its own training checkpoints."""
        work = self.root / WORK / name
        work.mkdir(parents=True, exist_ok=True)
        for child in work.iterdir():
            if child.name != RESUME:
                shutil.rmtree(child) if child.is_dir() else child.unlink()
        return work

    def _publish(
        self,
        function: Callable[..., Any],
        record: Artifact,
        inputs: dict[str, Any],
        *,
        key: str,
        work: Path,
        final: Path,
        seconds: float,
        earlier: Sequence[Path],
    ) -> None:
        def seal(stage: str, record: Artifact, inputs: dict[str, Any], folder: Path, *, figures: str, spare: bool) -> Artifact:
            files = {name: digest for name, digest in collect_files(folder).items() if not name.startswith((f"{RESUME}/", f"{MOMENTS}/"))}
            facts = json.loads(record.model_dump_json(exclude={"digest", "key"}))
            manifest = Manifest(
                stage=stage,
                version=_mark(function, "version"),
                key=key,
                inputs={name: lineage(value) for name, value in inputs.items()},
                files=files,
                record=facts | {"digest": digest_of(facts, files), "key": key},
                figures=figures,
                seconds=seconds,
                **host_facts(),
            )
            write_manifest(folder, _as_before(manifest, earlier) if folder == work else manifest)
            open_to_others(folder)
            keep_spare(folder, whole=spare)
            return record.model_copy(update={"digest": manifest.record["digest"], "key": key, "folder": final})

        made = seal(function.__name__, record, inputs, work, figures=_mark(function, "figures")(record), spare=is_timed(function))
        if (part := work / MOMENTS).is_dir():  # first: an artifact without moments would look as if `bonsai gc` had freed them
            seal(MOMENTS, Moments(folder=part), {"of": made}, part, figures="", spare=False)
            with hold(self.root / LOCKS / f"{MOMENTS}-{key}", wait=True):
                self._replace(part, self.root / MOMENTS / key)
        self._finish(work, final)

    def _replace(self, part: Path, final: Path) -> None:
        """Move a finished part to its final place, unless the same part is there already."""
        if os.path.lexists(final):
            with suppress(ArtifactDamaged):
                if require_intact(final).record == read_manifest(part).record:
                    shutil.rmtree(part)
                    return
            self._set_aside(final)
        self._finish(part, final)

    def _finish(self, work: Path, final: Path) -> None:
        """Write a finished folder through to the disk, and move it to its final place."""
        for file in [*work.rglob("*"), work]:
            _sync(file)
        with suppress(FileNotFoundError):
            shutil.rmtree(work / RESUME)  # last: if the disk fills up before this, the next run can still continue from there
        final.parent.mkdir(parents=True, exist_ok=True)
        work.rename(final)
        _sync(final.parent)


def is_timed(function: Callable[..., Any]) -> bool:
    """Return whether a stage measures latency."""
    return bool(_mark(function, "timed"))


def require_writable_folder(folder: Path, option: str) -> None:
    """Make a folder and check that files can be written in it.

    Raises:
        ConfigError: No file can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = f"{option}: files cannot be written there"
        raise ConfigError(
            describe(problem, given=f"{folder} ({error.strerror})", allowed="a folder that you may write to", fix=f"choose another {option}")
        ) from error


def load_artifact(kind: type[ArtifactT], folder: Path) -> ArtifactT:
    """Check the hashes of an artifact's files, and return its record.

    Raises:
        ArtifactDamaged: The record or a file has changed since the stage wrote it.
    """
    manifest = require_intact(folder)
    try:
        return kind.model_validate({**manifest.record, "folder": folder})
    except ValidationError as error:
        problem = f"{folder.parent.name}/{folder.name} is damaged: its record is not a valid {kind.__name__}"
        fix = "repeat the `bonsai run` that made it"
        raise ArtifactDamaged(describe(problem, given=f"{error.error_count()} fields that do not fit", allowed="a record of this version", fix=fix)) from error


def lineage(value: Any) -> Any:
    """Return a stage's input as its manifest records it: an artifact as its address and digest, a config in full."""
    if isinstance(value, Artifact):
        return {"artifact": f"{value.folder.parent.name}/{value.key}", "digest": value.digest}
    if isinstance(value, tuple):
        return [lineage(item) for item in value]
    return json.loads(value.model_dump_json()) if hasattr(value, "model_dump_json") else value


def _require_intact_input(value: Any) -> None:
    if isinstance(value, Artifact) and (value.folder / MANIFEST).is_file():  # otherwise no store made it
        require_intact(value.folder)
    for item in value if isinstance(value, tuple) else ():
        _require_intact_input(item)


def _as_before(manifest: Manifest, earlier: Sequence[Path]) -> Manifest:
    """Return the damaged artifact's own manifest if the same bytes were made again, else the new one.

    Packages that were made from the artifact quote the times in its manifest.
    """
    for folder in earlier:
        with suppress(ArtifactDamaged):
            before = read_either_manifest(folder)
            if (before.record, before.files, before.inputs) == (manifest.record, manifest.files, manifest.inputs):
                return before
    return manifest


def _mark(function: Callable[..., Any], name: str) -> Any:
    try:
        return getattr(function, name)
    except AttributeError:
        raise TypeError(f"{function.__name__} is not a stage: decorate it with @stage(version=1)") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
