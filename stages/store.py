"""Runs a stage once per distinct input and keeps what it wrote.

    store = Store(Path("artifacts"))
    dataset = store.run(prepare, data=DataConfig(name="digits"))

An artifact is built beside its final place, in ``.work``, and published by one rename after its
``manifest.json`` is written: what stands under ``<stage>/<key>`` is finished. A killed stage leaves its
work folder, and the next run continues from the training checkpoints it finds there.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, get_type_hints

from profiles.errors import ConfigError, describe
from stages.artifacts import Artifact, fingerprint, sha256_text
from stages.errors import VerificationError
from stages.locks import hold
from stages.manifest import MANIFEST, Manifest, collect_files, host_facts
from stages.timing_lock import hold_timing

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
LOCKS = ".locks"
WORK = ".work"
IN_USE = "in-use"
"""Lock that a run shares with other runs for as long as it needs the artifacts that it has found or made; who frees some holds it alone."""
RESUME = "resume"
"""Folder in `out_dir` for a stage's own training checkpoints; never published."""


class Step(Protocol):
    """Runs one stage: `Store.run` as it is, or wrapped in a Prefect task."""

    def __call__(self, stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Run `stage` on `inputs`, or return what an earlier run left."""
        ...


def stage(*, version: int, timed: bool = False, tools: tuple[str, ...] = ()) -> Callable[[Callable[..., ArtifactT]], Callable[..., ArtifactT]]:
    """Mark a function as a stage.

    Args:
        version: Raised when the meaning of the stage's result changes: older artifacts are then not reused.
        timed: Whether the stage measures latency: one such stage runs at a time on a machine.
        tools: Distributions whose version is part of the key, because the result depends on it.
    """

    def mark(function: Callable[..., ArtifactT]) -> Callable[..., ArtifactT]:
        function.version = version  # type: ignore[attr-defined]  # read by Store alone
        function.timed = timed  # type: ignore[attr-defined]
        function.tools = tools  # type: ignore[attr-defined]
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
        prints = {name: fingerprint(value) for name, value in inputs.items()}
        versions = {tool: metadata.version(tool) for tool in _mark(function, "tools")}
        return sha256_text(json.dumps([function.__name__, _mark(function, "version"), versions, prints], sort_keys=True))[:16]

    def find(self, function: Callable[..., ArtifactT], **inputs: Any) -> ArtifactT | None:
        """Return the finished artifact of this stage and these inputs, or None."""
        folder = self.root / function.__name__ / self.key(function, inputs)
        return self._load(function, folder) if (folder / MANIFEST).exists() else None

    def run(self, function: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Return the stage's artifact, running the stage only where there is none yet."""
        key = self.key(function, inputs)
        final = self.root / function.__name__ / key
        if (final / MANIFEST).exists():
            return self._load(function, final)
        with hold(self.root / LOCKS / f"{function.__name__}-{key}", wait=True):
            if (final / MANIFEST).exists():  # another process finished it while this one waited
                return self._load(function, final)
            work = self._work_folder(f"{function.__name__}-{key}")
            with hold_timing() if is_timed(function) else nullcontext():
                started = time.time()
                record = function(work, **inputs)
            self._publish(function, record, inputs, key=key, work=work, final=final, seconds=time.time() - started)
        return self._load(function, final)

    def _load(self, function: Callable[..., ArtifactT], folder: Path) -> ArtifactT:
        kind = cast(type[ArtifactT], get_type_hints(function)["return"])
        return load_artifact(kind, folder)

    def _work_folder(self, name: str) -> Path:
        """Return the stage's work folder, emptied of all but its own training checkpoints."""
        work = self.root / WORK / name
        work.mkdir(parents=True, exist_ok=True)
        for child in work.iterdir():
            if child.name != RESUME:
                shutil.rmtree(child) if child.is_dir() else child.unlink()
        return work

    def _publish(self, function: Callable[..., Any], record: Artifact, inputs: dict[str, Any], *, key: str, work: Path, final: Path, seconds: float) -> None:
        shutil.rmtree(work / RESUME, ignore_errors=True)
        files = collect_files(work)
        content = record.model_dump_json(exclude={"digest", "key"})
        digest = sha256_text(json.dumps([content, sorted(files.items())]))
        manifest = Manifest(
            stage=function.__name__,
            version=_mark(function, "version"),
            key=key,
            inputs={name: lineage(value) for name, value in inputs.items()},
            files=files,
            record=json.loads(record.model_copy(update={"digest": digest, "key": key}).model_dump_json()),
            seconds=seconds,
            **host_facts(),
        )
        (work / MANIFEST).write_text(manifest.model_dump_json(indent=2))
        for file in [*work.rglob("*"), work]:
            _sync(file)
        final.parent.mkdir(parents=True, exist_ok=True)
        work.rename(final)
        _sync(final.parent)


def is_timed(function: Callable[..., Any]) -> bool:
    """Return whether a stage measures latency."""
    return bool(_mark(function, "timed"))


def require_writable_folder(folder: Path, option: str) -> None:
    """Make a folder and check that files can be written in it.

    Raises:
        ConfigError: They cannot.
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
    """Read an artifact's record from its folder.

    Raises:
        VerificationError: A file that the manifest lists is gone.
    """
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        raise VerificationError(f"{folder}: {missing[0]} is gone although the manifest lists it; delete the folder, and the next run makes it again")
    return kind.model_validate({**manifest.record, "folder": folder})


def lineage(value: Any) -> Any:
    """Return how a stage's input stands in its manifest: artifacts by address, configs whole."""
    if isinstance(value, Artifact):
        return {"artifact": f"{value.folder.parent.name}/{value.key}", "digest": value.digest}
    if isinstance(value, tuple):
        return [lineage(item) for item in value]
    return json.loads(value.model_dump_json()) if hasattr(value, "model_dump_json") else value


def _mark(function: Callable[..., Any], name: str) -> Any:
    try:
        return getattr(function, name)
    except AttributeError:
        raise TypeError(f"{function.__name__} is no stage: decorate it with @stage(version=1)") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
