"""Stage `assess`: the engine that ships and the dense reference on the test part, once, and the verdict."""

from pathlib import Path

from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.measurement.judging import accuracy_of, observe
from bonsai.stages.measurement.measurements import Measurement, Row
from bonsai.stages.measurement.results import RESULTS, Results, measured_by, run_for_accuracy, save_results
from bonsai.stages.measurement.verdicts import ACCURACY_GATES, Shown, accuracy_gates, doubt_about
from bonsai.stages.store.store import stage
from bonsai.stages.tasks.registry import task_named


@stage(version=2, figures=Measurement.figures)
def assess(
    out_dir: Path,
    measurement: Measurement,
    dense: Engine,
    engine: Engine,
    dataset: Dataset,
    profile: HardwareProfile,
    with_reference: bool = True,
    full: Dataset | None = None,
) -> Measurement:
    """Run the test images, which chose nothing, and judge the accuracy gates by them; all other gates stay as they were measured.

    Args:
        out_dir: Receives ``test_results.safetensors``: what the task keeps of each test image and both engines.
        measurement: Measurement on the validation images, by which the engine was chosen.
        dense: Engine of the dense network.
        engine: The one that ships.
        dataset: Source of the test part.
        profile: The gates.
        with_reference: As for `measure`: an untrained dense network does not see the test images.
        full: As for `measure`: the same images in the size that the dense network takes.
    """
    task = task_named(dataset.task)
    part = Part(dataset, "test")
    seen_by = {"dense": dense, "shipped": engine} if with_reference else {"shipped": engine}
    parts = {"dense": Part(full, "test") if full is not None else part, "shipped": part}
    seen = {name: observe(run_for_accuracy(one, profile.target, parts[name].one_by_one()), part.targets, task) for name, one in seen_by.items()}
    results = Results(seen.get("dense"), seen["shipped"])
    save_results(out_dir / RESULTS, results, task)
    doubt = "" if results.dense is None else doubt_about(task, task.reduce(results.dense), part.some_targets(), "test")
    judged = accuracy_gates(Shown.on_test(task, results.dense, results.shipped, doubt), profile.gates)
    latency, *others = (gate for gate in measurement.gates if gate.name not in ACCURACY_GATES)

    def on_test(row: Row) -> Row:
        seen, by = (results.dense, dense) if row.network == "dense" else (results.shipped, engine)
        if seen is None or not (row.shipped or row.network == "dense"):
            return row
        return row.model_copy(update={"accuracy": accuracy_of(seen, task, measured_by(by), "test"), "validation": row.accuracy})

    return measurement.model_copy(
        update={
            "folder": out_dir,
            "digest": "",
            "key": "",
            "rows": tuple(on_test(row) for row in measurement.rows),
            "gates": (latency, *judged, *others),
            "warnings": (doubt,) if doubt else (),
            "test_digest": part.digest,
        }
    )
