"""Stage `assess`: the engine that ships and the dense reference on the test part, once, and the verdict."""

from pathlib import Path

from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.measurement.classifying import RESULTS, Results, accuracy_of, classify, digest_of, measured_by, open_for_accuracy, save_results
from bonsai.stages.measurement.measurements import Measurement, Row
from bonsai.stages.measurement.verdicts import ACCURACY_GATES, Shown, accuracy_gates, doubt_about
from bonsai.stages.store.store import stage
from bonsai.stages.training.batches import load_split


@stage(version=1)
def assess(out_dir: Path, measurement: Measurement, dense: Engine, engine: Engine, dataset: Dataset, profile: HardwareProfile) -> Measurement:
    """Run the test images, which chose nothing, and judge the accuracy gates by them; all other gates stay as they were measured.

    Args:
        out_dir: Receives ``test_results.safetensors``: the class of each test image, and what both engines took it for.
        measurement: By which the engine was chosen, on the validation part.
        dense: Engine of the dense network.
        engine: The one that ships.
        dataset: Source of the test part.
        profile: The gates.
    """
    images, labels = (tensor.numpy() for tensor in load_split(dataset, "test"))
    results = Results(labels, *(classify(open_for_accuracy(one, profile), images) for one in (dense, engine)))
    save_results(out_dir / RESULTS, results)
    doubt = doubt_about(float(results.dense_hits.mean()), results.labels, "test")
    judged = accuracy_gates(Shown.on_test(results.dense_hits, results.shipped_hits, doubt), profile.gates)
    latency, *others = (gate for gate in measurement.gates if gate.name not in ACCURACY_GATES)

    def on_test(row: Row) -> Row:
        if not (row.shipped or row.network == "dense"):
            return row
        hits, by = (results.dense_hits, dense) if row.network == "dense" else (results.shipped_hits, engine)
        return row.model_copy(update={"accuracy": accuracy_of(hits, measured_by(by), "test"), "validation": row.accuracy})

    return measurement.model_copy(
        update={
            "folder": out_dir,
            "digest": "",
            "key": "",
            "rows": tuple(on_test(row) for row in measurement.rows),
            "gates": (latency, *judged, *others),
            "warnings": (doubt,) if doubt else (),
            "test_digest": digest_of(images, labels),
        }
    )
