"""How much faster pruning and INT8 make an engine, apart and together, on the CPU runtimes.

python benchmarks/speed.py      # results/speed.json; about twenty minutes; wants a quiet machine

Widths are fitted to half of the dense FP32 latency (ONNX Runtime, one thread, batch 1) by the closed loop; all engines of a network and batch are timed in
turns, in one process, by the wall clock. Weights are untrained: latency depends on the widths alone.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bonsai.pipeline.run.device_timing import DeviceTimer, Untrained
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import prepare_target
from bonsai.stages.backends.registry import backend_of, check_target
from bonsai.stages.backends.timing import time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.criteria import WeightCriterion
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.pruning.scores import weight_scores
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store

RESULTS = Path(__file__).parent / "results" / "speed.json"
NETWORKS = {
    "resnet20, width 32, 32 pixels": (ModelConfig(name="resnet20", options={"width": 32}), (1, 32, 32), 10),
    "resnet18, 224 pixels": (ModelConfig(name="resnet18"), (3, 224, 224), 1000),
    "mobilenet_v2, 224 pixels": (ModelConfig(name="mobilenet_v2"), (3, 224, 224), 1000),
}
PROFILES = {"onnxruntime": "local-cpu", "openvino": "local-cpu-openvino"}
BATCHES = (1, 8)
BUDGET = 0.5
CRITERION: WeightCriterion = "magnitude_l2"
"""Of the weights alone: nothing is trained here, so there are no gradients."""
REFERENCE = ("onnxruntime", "dense", "fp32")
ROUNDS = 5
TIMING = TimingConfig(runs=400, seconds=4, block=10, warmup_runs=20, warmup_seconds=0.3)


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description="Speed of pruned and quantised engines")
    parser.add_argument("--store", type=Path, default=None, help="keep engines and timings here; a temporary folder otherwise")
    options = parser.parse_args()
    store = Store(options.store or Path(tempfile.mkdtemp(prefix="speed-")))
    rows: list[dict[str, object]] = []
    for name, (model, image_shape, num_classes) in NETWORKS.items():
        widths = halved(model, image_shape, num_classes, store)
        for batch in BATCHES:
            rows += compare(name, model, image_shape, num_classes, widths, batch, store)
            RESULTS.write_text(json.dumps({**host_facts(), "budget": BUDGET, "rounds": ROUNDS, "rows": rows}, indent=1) + "\n")


def halved(model: ModelConfig, image_shape: tuple[int, ...], num_classes: int, store: Store) -> Widths:
    """Return the widths that the closed loop finds for half of the dense FP32 latency."""
    overrides = {"profile.target.precision": "fp32", "profile.budget.latency": BUDGET, "timing.runs": 400, "timing.seconds": 3}
    recipe, (profile,) = load("resnet-edge", "local-cpu", overrides)
    recipe = recipe.model_copy(update={"model": model})
    network = inspect_network(recipe, image_shape, num_classes)
    target = prepare_target(recipe, profile, network, store.run)
    scores = weight_scores(build_network(model, image_shape, num_classes), network.groups)[CRITERION]
    return target.chooser.fit(scores, target.time_untrained, doubt=target.timer.doubt).widths


def compare(name: str, model: ModelConfig, image_shape: tuple[int, ...], num_classes: int, widths: Widths, batch: int, store: Store) -> list[dict[str, object]]:
    """Time every engine of a network at one batch and return a row for each."""
    engines: dict[tuple[str, str, str], Any] = {}
    coverage: dict[tuple[str, str, str], dict[str, int]] = {}
    for runtime, profile_name in PROFILES.items():
        recipe, (profile,) = load("resnet-edge", profile_name, {"profile.target.batch": batch})
        target = profile.target
        untrained = Untrained(model, image_shape, num_classes, recipe.quantize.keep_float, recipe.export)
        timer = DeviceTimer(untrained, recipe.timing, profile, check_target(target), store.run)
        for state, chosen in (("dense", {}), ("pruned", widths)):
            for precision in ("fp32", "int8"):
                engine = timer.build(chosen, target.at(precision))
                engines[runtime, state, precision] = backend_of(target).open_engine(engine.folder / engine.file, target.at(precision))
                coverage[runtime, state, precision] = engine.coverage
    images = np.random.default_rng(0).standard_normal((batch, *image_shape)).astype(np.float32)
    named = {" ".join(key): run for key, run in engines.items()}
    medians = []
    for _ in range(ROUNDS):
        samples = time_interleaved(named, dict.fromkeys(named, images), TIMING)
        medians.append({key: float(np.median(samples[" ".join(key)][1])) / 1e6 for key in engines})
    rows = []
    for key in engines:
        ratios = sorted(found[REFERENCE] / found[key] for found in medians)
        row = {
            "network": name,
            "batch": batch,
            **dict(zip(("runtime", "state", "precision"), key, strict=True)),
            "speedup": statistics.median(ratios),
            "spread": [ratios[0], ratios[-1]],
            "ms": statistics.median(found[key] for found in medians),
            "coverage": coverage[key],
        }
        rows.append(row)
        print(f"{name:30} batch {batch}  {' '.join(key):26} {row['speedup']:.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})  {row['ms']:.3f} ms", flush=True)
    return rows


if __name__ == "__main__":
    main()
