"""How well a latency table predicts whole networks, by its grid and by the networks that it is fitted to.

python benchmarks/table.py      # results/table.json; about fifteen minutes; wants a quiet machine

Thirty random networks of aligned widths per case, timed in turns with the dense FP32 one; the model is fitted to none of them.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from bonsai.pipeline.run.device_timing import DeviceTimer, random_networks, sample_networks
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import untrained_network
from bonsai.profiles.latency import Entry, LatencyTable, TableMeta
from bonsai.stages.backends.operator_timing import measure_operator
from bonsai.stages.backends.registry import check_target
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.selection.fitting import FittedLatency
from bonsai.stages.steps.characterize import grid_points
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store

RESULTS = Path(__file__).parent / "results" / "table.json"
CASES = {
    "resnet20, width 32, 32 pixels": (ModelConfig(name="resnet20", options={"width": 32}), (1, 32, 32), 10),
    "resnet18, 224 pixels": (ModelConfig(name="resnet18"), (3, 224, 224), 1000),
}
PRECISIONS = ("fp32", "int8")
UNSEEN, FITTING = 30, (0, 12, 24)
STEP = 16


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description="How well a latency table predicts whole networks")
    parser.add_argument("--store", type=Path, default=None, help="keep engines and timings here; a temporary folder otherwise")
    options = parser.parse_args()
    store = options.store or Path(tempfile.mkdtemp(prefix="table-"))
    rows = []
    for name, (model, image_shape, num_classes) in CASES.items():
        for precision in PRECISIONS:
            rows += measure(name, model, image_shape, num_classes, precision, store)
            RESULTS.write_text(json.dumps({**host_facts(), "unseen": UNSEEN, "rows": rows}, indent=1) + "\n")


def measure(name: str, model: ModelConfig, image_shape: tuple[int, ...], num_classes: int, precision: str, store: Path) -> list[dict[str, object]]:
    """Return a row per grid and number of fitted networks."""
    recipe, (profile,) = load("resnet-edge", "local-cpu", {"profile.target.precision": precision})
    recipe = recipe.model_copy(update={"model": model})
    network, info = inspect_network(recipe, image_shape, num_classes), check_target(profile.target)
    widths = width_choices(network.groups, recipe.prune, profile)
    timer = DeviceTimer(untrained_network(recipe, network), recipe.timing, profile, info, Store(store).run)
    operators = network.operators_at(profile.target)
    grids = {"corners": grid_points(operators, network.groups, STEP, middle=False), "three by three": grid_points(operators, network.groups, STEP)}
    entries, seconds = {}, {}
    for grid, points in grids.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            entries[grid] = [measure_operator(*point, profile.target, scratch=Path(scratch))[0] for point in points]
        seconds[grid] = time.perf_counter() - started
    fitting, unseen = sample_networks(widths, max(FITTING)), random_networks(widths, UNSEEN, seed=1)
    timed = [found.ms for found in timer.survey([*fitting, *unseen])]
    rows: list[dict[str, object]] = []
    for grid, measured in entries.items():
        for count in FITTING:
            seen = list(zip(fitting, timed, strict=False))[: count + 2]
            latency = FittedLatency(table_of(measured, precision), operators, seen)
            errors = [abs(latency(w) / ms - 1) for w, ms in zip(unseen, timed[len(fitting) :], strict=True)]
            rows.append(
                {
                    "network": name,
                    "precision": precision,
                    "grid": grid,
                    "entries": len(measured),
                    "table_seconds": seconds[grid],
                    "fitted_networks": count + 2,
                    "mean_error": statistics.mean(errors),
                    "largest_error": max(errors),
                }
            )
            what = f"{name:30} {precision} {grid:14} {len(measured):3} entries {seconds[grid]:5.1f} s, {count + 2:2} networks"
            print(f"{what}: mean {statistics.mean(errors):.2%}, largest {max(errors):.2%}", flush=True)
    return rows


def table_of(entries: list[Entry], precision: str) -> LatencyTable:
    """Return a table of this machine."""
    meta = {"source": "measured", "device": "host", "runtime": "onnxruntime", "runtime_version": "", "precision": precision, "batch": 1, "threads": 1}
    return LatencyTable(TableMeta.model_validate({**meta, "step": STEP, "clock": "runtime profiler", "statistic": "", "date": ""}), entries)


if __name__ == "__main__":
    main()
