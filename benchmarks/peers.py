"""Bonsai's INT8 beside ONNX Runtime's own quantiser, on the same pruned float networks: accuracy and latency.

python benchmarks/peers.py --store DIR      # results/peers.json; some fifteen minutes, most of them training; wants a quiet machine for the timing

ResNet-20 of width 48 on `glyphs` at 16 pixels, pruned to a fifth of its latency and trained as in `selection.py`; three seeds, 9,920 test images.
`quantize_static` calibrates on the very images that Bonsai calibrates on. *Tuned* is its best form on this runtime (uint8 activations, int8 weights
per channel, graph prepared first) with the method of calibration that does best on the validation split.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from arena import HERE, RESULTS, mean_interval, shown
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from selection import OVERRIDES, train_one

from bonsai.pipeline.run.loading import load
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.backends.registry import check_target
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.backends.timing import time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.graph.names import MODEL
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.quantization.config import QuantizeConfig
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.steps.export import export
from bonsai.stages.steps.quantize import quantize
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.tasks.intervals import paired_drop
from bonsai.stages.training.batches import Batches, load_split

FILE = RESULTS / "peers.json"
BUDGET, SEEDS, ROUNDS = 0.2, 3, 7
CALIBRATIONS = {"minimum and maximum": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile}
TIMING = TimingConfig(runs=1000, seconds=2, block=20, warmup_runs=100, warmup_seconds=0.2)


class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Batches of images, once through."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, or None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {"input": batch}


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description="Bonsai's INT8 beside quantize_static")
    parser.add_argument("--store", type=Path, default=None, help="keep the trunks here, and share them with selection.py; a temporary folder otherwise")
    options = parser.parse_args()
    folder = options.store or Path(tempfile.mkdtemp(prefix="peers-"))
    rows = [run_seed(seed, folder) for seed in range(SEEDS)]
    summary: dict[str, dict[str, Any]] = {}
    for name in rows[0]:
        found = [row[name] for row in rows]
        summary[name] = {
            "top1": mean_interval([f["top1"] * 100 for f in found]),
            "minus_float": mean_interval([-f["drop"][0] * 100 for f in found]),
            "speedup": statistics.mean(f["speedup"] for f in found),
            "speedup_spread": [min(f["spread"][0] for f in found), max(f["spread"][1] for f in found)],
        }
        low, high = summary[name]["speedup_spread"]
        accuracy = f"{shown(summary[name]['top1'])}  against float {shown(summary[name]['minus_float'])}"
        print(f"{name:34} {accuracy}  {summary[name]['speedup']:.2f}x ({low:.2f}-{high:.2f})")
    FILE.write_text(json.dumps({"summary": summary, **host_facts(), "seeds": rows}, indent=1) + "\n")


def run_seed(seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what every engine of one seed's network does."""
    trunk, pruned = train_one(seed, BUDGET, "reciprocal", folder)
    recipe, (profile,) = load(str(HERE / "arena.yaml"), "local-cpu", OVERRIDES)
    target, training, store = profile.target, trunk.recipe.training, trunk.store

    def built(checkpoint: Checkpoint, precision: Any) -> Engine:
        device = target.at(precision)
        graph = store.run(export, checkpoint=checkpoint, dataset=trunk.dataset, config=recipe.export, batch=None, **graph_form(device)._asdict())
        return store.run(compile_engine, graph=graph, target=device, info=check_target(device))

    def quantised(**policy: Any) -> Checkpoint:
        config = QuantizeConfig(**policy)
        bits = backend.weight_bits(check_target(target))
        return store.run(quantize, pruned=pruned, dataset=trunk.dataset, training=training, config=config, dialect="ort", weight_bits=bits)

    fp32 = built(pruned, "fp32")
    engines = {
        "float": fp32.folder / fp32.file,
        "Bonsai, calibrated (PTQ)": _engine(built(quantised(qat="never"), "int8")),
        "Bonsai, fine-tuned (QAT)": _engine(built(quantised(qat="always", lr=0.01, epochs=4), "int8")),
        **peers(fp32.folder / MODEL, trunk.dataset, calibrating(trunk.dataset, training, pruned.step), folder / f"peers-{seed}", target),
    }
    runs = {name: backend.open_engine(file, target) for name, file in engines.items()}
    images, labels = load_split(trunk.dataset, "test")
    hits = {name: run(images.numpy()).argmax(1) == labels.numpy() for name, run in runs.items()}
    medians = []
    for _ in range(ROUNDS):
        samples = time_interleaved(runs, dict.fromkeys(runs, images[:1].numpy()), TIMING)
        medians.append({name: float(np.median(values[0])) for name, values in samples.items()})
    found = {}
    for name in engines:
        ratios = sorted(m["float"] / m[name] for m in medians)
        speed = {"speedup": statistics.median(ratios), "spread": [ratios[0], ratios[-1]]}
        found[name] = {"top1": float(hits[name].mean()), "drop": paired_drop(hits["float"], hits[name]), **speed}
        print(f"seed {seed} {name:34} {found[name]['top1']:.4f}  {found[name]['speedup']:.2f}x", flush=True)
    return found


def peers(graph: Path, dataset: Dataset, batches: list[np.ndarray], folder: Path, target: Any) -> dict[str, Path]:
    """Return the engines of quantize_static, default and tuned."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_split(dataset, "validation")

    def engine(name: str, source: Path, **form: Any) -> Path:
        quantize_static(str(source), str(folder / f"{name}.onnx"), Reader(batches), **form)
        backend.build(folder / f"{name}.onnx", folder / f"{name}-engine.onnx", target, dataset.image_shape)
        return folder / f"{name}-engine.onnx"

    quant_pre_process(str(graph), str(folder / "prepared.onnx"))
    tuned: dict[str, float] = {}
    for name, method in CALIBRATIONS.items():
        form = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True, "calibrate_method": method}
        run: Run = backend.open_engine(engine(name, folder / "prepared.onnx", **form), target)
        tuned[name] = float((run(images.numpy()).argmax(1) == labels.numpy()).mean())
    best = max(tuned, key=lambda name: tuned[name])
    print(f"quantize_static, tuned: {best} of {tuned}", flush=True)
    return {"quantize_static, default": engine("default", graph), "quantize_static, tuned": folder / f"{best}-engine.onnx"}


def calibrating(dataset: Dataset, training: Any, start: int) -> list[np.ndarray]:
    """Return the training images that Bonsai calibrates on."""
    batches = Batches(PreparedImages(dataset, "train"), training)
    return [batches.batch(start + step)[0].contiguous().numpy() for step in range(QuantizeConfig().calibration_batches)]


def _engine(built: Engine) -> Path:
    return built.folder / built.file


if __name__ == "__main__":
    main()
