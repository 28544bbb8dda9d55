"""The contents of a package: its files, and the manifest, which lists them and has all facts for the person who receives it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bonsai.profiles.bounded_json import read_json
from bonsai.profiles.errors import describe, shorten
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.deployed import DEPLOY, DeployedManifest
from bonsai.stages.delivery.golden import GOLDEN
from bonsai.stages.delivery.packed_facts import SCHEMA, PackagedOutput, PackedFacts
from bonsai.stages.delivery.sums import CHANGED, SUMS, list_files, read_sums, require_names, require_plain, require_sums, write_sums
from bonsai.stages.errors import VerificationError
from bonsai.stages.measurement.measurements import Against, KernelShare, Row
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.registry import DEFAULT, TASKS, packaged_task, task_named
from bonsai.stages.tasks.results_table import Picture, ResultsTable
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.texts import one_line

FOLDER = "package"
"""Name of a package in the artifact of the stage that makes it."""
CARD, FIGURE = "MODEL_CARD.md", "training.svg"
REPORTS = ("report.html", "report.md")
LABELS = "labels.txt"
"""File of a layout with the classes, in the order of the output."""
ManifestT = TypeVar("ManifestT", bound=PackedFacts)


class PackageManifest(PackedFacts):
    """``manifest.json`` of a package that a run made.

    Attributes:
        preprocess: How images become the engine's input; None in packages of earlier versions: pixels / 127.5 - 1.
        metric: The metric of all accuracies.
        metrics: The result table.
        points: The shipped engine at each of the profile's points.
        tables: Results of the shipped engine by class, label or figure, on the test images.
        pictures: A few test images with their results.
        test_digest: sha256 of the test part, whose images ``test_results.safetensors`` tells of one by one.
        notes: Why this precision, and how the accuracy and the latency of the table were found.
        against: The engine beside an earlier package's; None where none was named.
        kernels: Kinds of kernels with their share of the run time; empty if they could not be profiled.
        dense_kernels: The same for the dense engine.
        quantisation: How the network was quantised, in words.
        history: The learning curve, from the trunk to the end.
    """

    recipe: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess | None = None
    decisions: dict[str, Any]
    metric: Metric = task_named(DEFAULT).metric
    metrics: tuple[Row, ...]
    points: tuple[AtPoint, ...] = ()
    tables: tuple[ResultsTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    test_digest: str = ""
    notes: tuple[str, str, str]
    against: Against | None = None
    kernels: tuple[KernelShare, ...]
    dense_kernels: tuple[KernelShare, ...]
    quantisation: str
    history: tuple[History, ...]

    @property
    def task(self) -> str:
        """Name of the task: one of Bonsai's, or an import string of its maker's, which nobody may follow (`packaged_task`).

        Raises:
            VerificationError: The recipe names none that there is.
        """
        task = self.recipe.get("task", DEFAULT)
        if task not in TASKS and not (isinstance(task, str) and ":" in task):
            raise VerificationError(describe(f"{MANIFEST}: its recipe has no task that is known here", given=shorten(str(task)), allowed=TASKS, fix=CHANGED))
        return str(task)

    @property
    def engine_outputs(self) -> tuple[PackagedOutput, ...]:
        """The outputs of the engine, in its order.

        Raises:
            VerificationError: The manifest says nothing of them, and its task is none of Bonsai's.
        """
        if self.outputs:
            return self.outputs
        task = packaged_task(self.task)
        if task is None:
            raise VerificationError(describe(f"{MANIFEST}: it has no outputs", given=self.task, allowed="the engine's outputs", fix=CHANGED))
        return tuple(PackagedOutput(**output._asdict()) for output in task.outputs(DataSpec(self.engine.image_shape, len(self.classes))))


def with_sums(folder: Path, manifest: ManifestT) -> ManifestT:
    """Return the manifest with the sums of the files that are in the folder."""
    return manifest.model_copy(update={"files": {name: sha256_file(folder / name) for name in sorted(list_files(folder) - {MANIFEST})}})


def write_labels(folder: Path, manifest: PackageManifest) -> None:
    r"""Write the classes, a line each; a line break in a name becomes an escape such as ``\n``, so that no label stands a line too low."""
    (folder / LABELS).write_text("".join(f"{one_line(name)}\n" for name in manifest.classes), encoding="utf-8")


def seal(folder: Path, manifest: PackageManifest | DeployedManifest) -> None:
    """Write the manifest with the sums of the files that are there, then ``SHA256SUMS`` over these and the manifest."""
    whole = with_sums(folder, manifest)
    (folder / MANIFEST).write_text(whole.model_dump_json(indent=2), encoding="utf-8")
    write_sums(folder)


def read_intact(folder: Path) -> PackageManifest:
    """Return the manifest of a package that a run made, whose files are all as they were sealed.

    Raises:
        VerificationError: The first thing that differs; or the package has no recipe, since `bonsai.deploy` made it.
    """
    manifest = read_any_intact(folder)
    if isinstance(manifest, DeployedManifest):
        raise _without_recipe(folder)
    return manifest


def read_any_intact(folder: Path) -> PackageManifest | DeployedManifest:
    """Return the manifest of any package whose files are all as they were sealed.

    Raises:
        VerificationError: The first thing that differs.
    """
    require_package(folder)
    manifest = _read_manifest(folder)
    require_names(manifest.files, MANIFEST)
    sums = read_sums(folder)
    for name in sorted((sums.keys() | manifest.files.keys()) - {MANIFEST}):
        if sums.get(name) != manifest.files.get(name):
            raise VerificationError(
                describe(
                    f"{name}: {SUMS} and {MANIFEST} disagree",
                    given=f"{sums.get(name, 'not listed')} in {SUMS}",
                    allowed=f"{manifest.files.get(name, 'not listed')}, as in {MANIFEST}",
                    fix=CHANGED,
                )
            )
    _require_listed((MANIFEST,), sums, SUMS)
    _require_listed((manifest.engine.file, manifest.engine.graph, GOLDEN), manifest.files, MANIFEST)
    require_sums(folder, sums)
    return manifest


def _require_listed(names: tuple[str, ...], listed: Mapping[str, str], place: str) -> None:
    """Check that what is read later is among the files whose sums are checked."""
    for name in names:
        if name not in listed:
            raise VerificationError(describe(f"{name}: not listed in {place}", given=", ".join(sorted(listed)), allowed=f"a list with {name}", fix=CHANGED))


def require_package(folder: Path) -> None:
    """Check that a folder may be a package, before anything in it is read: it has a manifest, and is made of regular files.

    Raises:
        VerificationError: It has none, or holds a link, an empty folder, a pipe.
    """
    if not (folder / MANIFEST).is_file():
        raise VerificationError(
            describe(
                f"{folder}: no package, for it has no {MANIFEST}", given=folder, allowed="a package", fix="give the folder that `bonsai run` names at its end"
            )
        )
    require_plain(folder)


def require_recipe(folder: Path) -> None:
    """Check that a package is not one of `bonsai.deploy`, before it is read; whether it is intact is not looked at.

    Raises:
        VerificationError: It is.
    """
    with suppress(OSError, ValueError):
        facts = read_json(folder / MANIFEST)
        if isinstance(facts, dict) and facts.get("made_by") == DEPLOY:
            raise _without_recipe(folder)


def _without_recipe(folder: Path) -> VerificationError:
    return VerificationError(
        describe(
            f"{folder}: the package was made by bonsai.deploy, so it has no recipe, no classes and no preprocessing",
            given=folder,
            allowed="a package that `bonsai run` made",
            fix="run `bonsai verify` on it, or open its engine or model.onnx in your own program",
        )
    )


def _read_manifest(folder: Path) -> PackageManifest | DeployedManifest:
    try:
        facts = read_json(folder / MANIFEST)
    except ValueError as error:  # no JSON, or not even a text
        raise VerificationError(describe(f"{MANIFEST}: not valid JSON; the file was changed", given=error, allowed="JSON", fix=CHANGED)) from error
    version = facts.get("schema_version") if isinstance(facts, dict) else None
    if version != SCHEMA:
        raise VerificationError(
            describe(
                f"{folder}: no package manifest that this version of bonsai reads",
                given=f"schema {shorten(str(version))}",
                allowed=f"schema {SCHEMA}",
                fix="verify it with the bonsai that made it, or run `bonsai run` again",
            )
        )
    try:
        return (DeployedManifest if facts.get("made_by") == DEPLOY else PackageManifest).model_validate(facts)
    except ValidationError as error:
        fault = error.errors()[0]
        given = f"{'.'.join(map(str, fault['loc']))} = {shorten(repr(fault['input']))}: {fault['msg']}"
        problem = f"{MANIFEST}: incomplete; the file was changed"
        raise VerificationError(describe(problem, given=given, allowed="the manifest as it was written", fix=CHANGED)) from error
