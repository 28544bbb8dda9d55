"""How close engines come to the latency that was asked for, judged by a fresh measurement after the closed loop.

python benchmarks/budget.py      # results/budget.json; about 15 minutes; wants a quiet machine

Twenty pairs of network, precision and budget. Values are sums of the initial weights' norms: latency depends on the widths alone. The fresh
measurements are made after all loops have ended, since the measurement that ends a loop is the one that was let through. Each is the mean of six
processes, as a verdict has. Ratios are to the dense FP32 engine in the same turns; milliseconds are of the engine alone, by its thread's
clock, so a machine that is slower now shows in them and not in the ratios.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Final

from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import prepare_target
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.scores import weight_scores
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store

RESULTS = Path(__file__).parent / "results" / "budget.json"
NETWORKS = {
    "resnet20, width 32, 32 pixels": (ModelConfig(name="resnet20", options={"width": 32}), (1, 32, 32)),
    "resnet8, width 64, 32 pixels": (ModelConfig(name="resnet8", options={"width": 64}), (3, 32, 32)),
    "resnet20, width 48, 16 pixels": (ModelConfig(name="resnet20", options={"width": 48}), (1, 16, 16)),
}
BUDGETS = {
    ("resnet20, width 32, 32 pixels", "fp32"): (0.6, 0.4, 0.3),
    ("resnet20, width 32, 32 pixels", "int8"): (0.3, 0.25, 0.2, 0.15),
    ("resnet8, width 64, 32 pixels", "fp32"): (0.6, 0.4, 0.3),
    ("resnet8, width 64, 32 pixels", "int8"): (0.25, 0.2, 0.15, 0.1),
    ("resnet20, width 48, 16 pixels", "fp32"): (0.6, 0.4, 0.2),
    ("resnet20, width 48, 16 pixels", "int8"): (0.3, 0.25, 0.2),
}
CRITERION: Final = "magnitude_l2"
PROCESSES = 6
TIMING = {"timing.runs": 800, "timing.seconds": 2, "timing.tries": 2}


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description="Asked against measured latency")
    parser.add_argument("--store", type=Path, default=None, help="keep engines and timings here; a temporary folder otherwise")
    options = parser.parse_args()
    store = Store(options.store or Path(tempfile.mkdtemp(prefix="budget-")))
    ended = []
    for (name, precision), budgets in BUDGETS.items():
        model, image_shape = NETWORKS[name]
        for budget in budgets:
            wanted = {**TIMING, "profile.target.precision": precision, "profile.budget.latency": budget}
            recipe, (profile,) = load("resnet-edge", "local-cpu", wanted)
            recipe = recipe.model_copy(update={"model": model})
            network = inspect_network(recipe, image_shape, 10)
            target = prepare_target(recipe, profile, network, store.run)
            scores = weight_scores(build_network(recipe.model, image_shape, 10), network.groups)[CRITERION]
            fit = target.chooser.fit(scores, target.time_untrained, doubt=target.timer.doubt)
            ended.append((name, precision, budget, target, fit))
            found = ", ".join(f"{one.upper_ms / target.limit_ms:.4f} ({one.measured_ms / one.predicted_ms:.3f} of its prediction)" for one in fit.rounds)
            print(f"{name:30} {precision} {budget:.2f}: upper ends {found}", flush=True)
    rows = []
    for name, precision, budget, target, fit in ended:
        timed = [target.timer.time_again(fit.widths) for _ in range(PROCESSES)]
        fresh = statistics.mean(one.ms for one in timed) / target.limit_ms
        rows.append(
            {
                "network": name,
                "precision": precision,
                "budget": budget,
                "networks_timed": len(fit.rounds),
                "first_prediction": fit.rounds[0].measured_ms / fit.rounds[0].predicted_ms,
                "gap": fit.gap,
                "fresh": fresh,
                "budget_ms": target.limit_ms,
                "fresh_ms": statistics.mean(one.engine_ms for one in timed),
            }
        )
        print(f"{name:30} {precision} {budget:.2f}: fresh {fresh:.4f} of the budget", flush=True)
    fractions = [float(str(row["fresh"])) for row in rows]
    summary = {
        "pairs": len(fractions),
        "above": sum(f > 1 for f in fractions),
        "within_3_percent_below": sum(0.97 <= f <= 1 for f in fractions),
        "mean": statistics.mean(fractions),
        "lowest": min(fractions),
        "highest": max(fractions),
        "networks_timed": statistics.median(len(fit.rounds) for *_, fit in ended),
        "first_prediction_error": statistics.mean(abs(fit.rounds[0].measured_ms / fit.rounds[0].predicted_ms - 1) for *_, fit in ended),
        "last_prediction_error": statistics.mean(abs(fit.rounds[-1].measured_ms / fit.rounds[-1].predicted_ms - 1) for *_, fit in ended),
    }
    print(summary)
    RESULTS.write_text(json.dumps({"summary": summary, **host_facts(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
