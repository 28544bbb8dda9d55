"""Stage `package`: a folder that can be shipped, and its verification on the target."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from profiles.schema import HardwareProfile
from stages.artifacts import Artifact, Checkpoint, Dataset, Engine, sha256_file
from stages.backends.onnxruntime_engine import open_graph
from stages.backends.registry import backend_of, check_target
from stages.decisions import Decisions
from stages.errors import BuildError, VerificationError
from stages.figures import draw_training
from stages.graph.exporting import MODEL
from stages.lineage import Lineage
from stages.manifest import MANIFEST, collect_files, tool_versions
from stages.measurements import Gate, Measurement, Row
from stages.model_card import figure_notes, write_model_card
from stages.store import stage
from stages.training.batches import load_split

FOLDER, CARD, GOLDEN, FIGURE = "package", "MODEL_CARD.md", "golden.safetensors", "training.svg"
SCHEMA = 1
GOLDEN_IMAGES = 3
TOLERANCE = 0.02
"""Largest difference of a golden logit, relative to the largest one: kernels of other CPUs round otherwise."""


class Package(Artifact):
    """Files: ``package/`` with ``model.onnx``, the engine, ``golden.safetensors``, ``MODEL_CARD.md``, ``training.svg``, ``manifest.json``.

    Attributes:
        notes: Why this precision, and how the accuracy and the latency of the rows were found.
    """

    name: str
    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, str, str]
    engine_sha256: str
    decisions: Decisions


@stage(version=4)
def package(
    out_dir: Path,
    engine: Engine,
    measurement: Measurement,
    final: Checkpoint,
    dataset: Dataset,
    profile: HardwareProfile,
    decisions: Decisions,
    lineage: Lineage,
) -> Package:
    """Write the package.

    Args:
        out_dir: Receives the folder ``package``.
        engine: What is shipped.
        measurement: Its figures and gates.
        final: The network that the engine was exported from.
        dataset: Classes, licence and golden images.
        profile: What was asked.
        decisions: What was decided.
        lineage: What everything was made from.
    """
    folder = out_dir / FOLDER
    folder.mkdir()
    name = f"{decisions.recipe_name}--{profile.name}"
    for file in {MODEL, engine.file}:
        (folder / file).write_bytes((engine.folder / file).read_bytes())
    images = load_split(dataset, "test")[0][:GOLDEN_IMAGES].numpy()
    run = backend_of(profile.target).open_engine(folder / engine.file, profile.target) if engine.runnable else open_graph(folder / MODEL)
    logits = np.concatenate([run(images[i : i + 1]) for i in range(len(images))])
    save_file({"input": images, "logits": logits}, folder / GOLDEN)
    draw_training(folder / FIGURE, decisions.trigger, final.history)
    (folder / CARD).write_text(write_model_card(name, engine, measurement, final, dataset, profile, decisions))
    manifest = {
        "schema_version": SCHEMA,
        "name": name,
        "engine": {
            "file": engine.file,
            "runtime": engine.runtime,
            "precision": engine.precision,
            "dialect": engine.dialect,
            "coverage": engine.coverage,
            "run_here": engine.runnable,
        },
        "files": collect_files(folder),
        "device": engine.info.model_dump(),
        "tools": tool_versions(),
        "recipe": json.loads(decisions.recipe),
        "profile": profile.model_dump(mode="json"),
        "classes": dataset.classes,
        "decisions": decisions.model_dump(mode="json", exclude={"recipe"}),
        "metrics": [row.model_dump(mode="json") for row in measurement.rows],
        "gates": [gate.model_dump(mode="json") for gate in measurement.gates],
        "lineage": [ancestor.model_dump(mode="json") for ancestor in lineage.ancestors],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))
    return Package(
        folder=out_dir,
        name=name,
        rows=measurement.rows,
        gates=measurement.gates,
        notes=figure_notes(measurement, engine, profile.target),
        engine_sha256=sha256_file(folder / engine.file),
        decisions=decisions,
    )


def verify_package(folder: Path) -> list[str]:
    """Check a package on the machine it is on and return what was checked, line by line.

    Raises:
        VerificationError: The first thing that differs from the manifest.
        DeviceUnavailable: The engine's runtime is not installed here.
    """
    if not (folder / MANIFEST).is_file():
        raise VerificationError(f"{folder}: no package, for it has no {MANIFEST}; give the folder that `bonsai run` named at its end")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except json.JSONDecodeError as error:
        raise VerificationError(f"{folder / MANIFEST}: not valid JSON ({error}); the file was changed") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA:
        raise VerificationError(f"{folder}: no package manifest of schema {SCHEMA}, which this version of bonsai reads")
    try:
        files, engine_file = dict(manifest["files"]), str(manifest["engine"]["file"])
        profile = HardwareProfile.model_validate(manifest["profile"])
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{folder / MANIFEST}: incomplete ({error}); the file was changed") from error
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise VerificationError(f"{name}: listed in the manifest, but missing")
        if sha256_file(folder / name) != expected:
            raise VerificationError(f"{name}: its sha256 is not the manifest's; the file was changed")
    checked = [f"{len(files)} files have the manifest's sha256"]
    info = check_target(profile.target)
    if not info.present:
        return [*checked, f"not run: {profile.target.device.name} is not in this machine"]
    golden = load_file(folder / GOLDEN)
    try:
        run = backend_of(profile.target).open_engine(folder / engine_file, profile.target)
    except BuildError as error:
        raise VerificationError(f"{engine_file}: does not load on {info.device}: {error}") from error
    found = np.concatenate([run(image[None]) for image in golden["input"]])
    difference = float(np.abs(found - golden["logits"]).max() / np.abs(golden["logits"]).max())
    if not difference <= TOLERANCE:  # so that NaN is refused too
        raise VerificationError(f"{engine_file}: golden logits differ by {difference:.1%} of the largest (at most {TOLERANCE:.0%}) on {info.device}")
    return [
        *checked,
        f"{info.runtime} {info.runtime_version} on {info.device} gives the golden logits of {len(found)} images (largest difference {difference:.1e})",
    ]
