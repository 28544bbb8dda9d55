"""Stage `package`: a folder that can be shipped."""

import json
from functools import partial
from pathlib import Path

from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import CHUNK, Part
from bonsai.stages.delivery.compatibility import compatibility_of
from bonsai.stages.delivery.config import PackageConfig
from bonsai.stages.delivery.contents import CARD, FIGURE, FOLDER, PackageManifest, seal, with_sums
from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.delivery.golden import GOLDEN_IMAGES, write_golden
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.packed_facts import PackagedEngine, PackagedOutput
from bonsai.stages.delivery.predict.network import TEST_SAMPLES, mark_of
from bonsai.stages.delivery.predict.text import PREDICT, predict_text
from bonsai.stages.graph.names import MODEL
from bonsai.stages.measurement.measurements import Challenge, FreshTiming, Measurement
from bonsai.stages.measurement.results import RESULTS, read_results, run_for_accuracy
from bonsai.stages.measurement.verdicts import with_fresh
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.packed import write_network
from bonsai.stages.reporting.model_card import describe_quantisation, figure_notes, write_model_card
from bonsai.stages.reporting.plots import draw_training, learning_curve
from bonsai.stages.reporting.writing import write_reports
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.lineage import Lineage
from bonsai.stages.store.manifest import tool_versions
from bonsai.stages.store.store import stage
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import JOINED, DataSpec


def figures_of(made: Package) -> str:
    """Return its name, in a few words."""
    return made.name


@stage(version=16, figures=figures_of)
def package(
    out_dir: Path,
    engine: Engine,
    measurement: Measurement,
    challenge: Challenge | None,
    timing: FreshTiming | None,
    final: Checkpoint,
    dataset: Dataset,
    profile: HardwareProfile,
    decisions: Decisions,
    lineage: Lineage,
    config: PackageConfig,
    points: tuple[FreshTiming, ...] = (),
) -> Package:
    """Write the package.

    Args:
        out_dir: Receives the folder ``package``.
        engine: The engine to ship.
        measurement: Its figures and gates, of the test part.
        challenge: Its figures and gates against an earlier package.
        timing: The engine timed again for the verdict on its latency; None where its device is not here.
        final: The network that the engine was exported from.
        dataset: Classes, licence and golden images.
        profile: The profile that the engine was made for.
        decisions: Decisions that led to the engine, for the report.
        lineage: All artifacts that the package was made from.
        config: What it holds besides the engine.
        points: The engine timed again at each of the profile's points.
    """
    measurement = with_fresh(measurement, timing, profile, points) if timing else measurement
    gates = (*measurement.gates, *(challenge.gates if challenge else ()))
    against = challenge.against if challenge else None
    folder = out_dir / FOLDER
    folder.mkdir()
    name = f"{decisions.recipe_name}--{profile.name}"
    for file in {MODEL, engine.file}:
        (folder / file).write_bytes((engine.folder / file).read_bytes())
    task = task_named(dataset.task)
    outputs = task.outputs(DataSpec(final.image_shape, final.num_classes))
    part = Part(dataset, "test")
    marks = (mark_of(*sample) for inputs, wanted in part.batches(CHUNK) for sample in zip(inputs.numpy(), wanted.numpy(), strict=True))
    (folder / TEST_SAMPLES).write_text("".join(f"{mark}\n" for mark in marks))
    images, targets = part.first(GOLDEN_IMAGES), part.targets[:GOLDEN_IMAGES]
    seen = write_golden(folder, images, partial(run_for_accuracy, engine, profile.target), JOINED.join(output.name for output in outputs))
    (folder / RESULTS).write_bytes((measurement.folder / RESULTS).read_bytes())
    notes = figure_notes(measurement, engine, profile.target, timing, decisions.table_source)
    compatibility = compatibility_of(engine, profile.target, runtime_of(profile.target).package, most_images=profile.most_images)
    draw_training(folder / FIGURE, decisions.trigger, learning_curve(decisions.dense_history, final.history), decisions.cuts, task.metric)
    tables = task.tables(read_results(folder / RESULTS, task).shipped, dataset.classes)
    card = write_model_card(name, engine, measurement, challenge, final, dataset, profile, decisions, compatibility, notes, tables)
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / PREDICT).write_text(predict_text(), encoding="utf-8")
    if config.network:
        write_network(folder, final)
    manifest = PackageManifest(
        name=name,
        engine=PackagedEngine(
            file=engine.file,
            graph=MODEL,
            runtime=engine.runtime,
            precision=engine.precision,
            dialect=engine.dialect,
            image_shape=engine.image_shape,
            coverage=engine.coverage,
            run_here=engine.runnable,
        ),
        compatibility=compatibility,
        golden="engine" if engine.runnable else "onnxruntime on model.onnx",
        device=engine.info,
        tools=tool_versions(),
        recipe=json.loads(decisions.recipe),
        profile=profile,
        classes=dataset.classes,
        outputs=tuple(PackagedOutput(**output._asdict()) for output in outputs),
        preprocess=dataset.preprocess,
        decisions=decisions.model_dump(mode="json", exclude={"recipe"}),
        metric=task.metric,
        metrics=measurement.rows,
        points=measurement.points,
        tables=tables,
        pictures=task.pictures(images, seen, targets),
        gates=gates,
        warnings=measurement.warnings,
        test_digest=measurement.test_digest,
        notes=notes,
        against=against,
        kernels=measurement.kernels,
        dense_kernels=measurement.dense_kernels,
        quantisation=describe_quantisation(final, task.metric),
        history=final.history,
        lineage=lineage.ancestors,
    )
    write_reports(folder, [with_sums(folder, manifest)], title=name)
    seal(folder, manifest)
    return Package(
        folder=out_dir,
        name=name,
        metric=task.metric,
        rows=measurement.rows,
        gates=gates,
        notes=notes,
        warnings=measurement.warnings,
        against=against,
        engine_sha256=sha256_file(folder / engine.file),
        decisions=decisions,
    )
