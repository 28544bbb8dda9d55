"""What pruning early costs against train-prune-finetune, in time, and what the networks of the oracle really take on the device.

Steps of the dense and the pruned networks are timed in turns on this machine's CPU; a training's time is its steps times those.

    python benchmarks/cost.py        # after oracle.py; on a quiet machine, about three minutes; results/cost.json
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from arena import HERE, RESULTS, Outcome, load_outcomes
from oracle import FINETUNE
from torch.nn import functional

from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import prepare_target
from bonsai.stages.networks.registry import build_network, to_channels_last
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import first_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.training.state import TrainState, reproducible

ROUNDS, STEPS = 8, 2


def main() -> None:
    """Time steps and engines, and write the result."""
    outcomes = [o for o in load_outcomes(RESULTS / "oracle.json") if o.setting.epoch == "epi" and o.setting.seed == 0 and o.setting.budget < 1]
    recipe, (profile,) = load(str(HERE / "arena.yaml"), str(HERE / "arena-cpu.yaml"), {"training.threads": 2})
    shape, classes = (1, 32, 32), 62
    states = []
    for widths in ({}, *(o.widths for o in outcomes)):
        network = build_network(recipe.model, shape, classes)
        cut(network, find_groups(network, shape), first_channels(widths))
        to_channels_last(network)
        states.append(TrainState(network, recipe.training))
    images, labels = (
        torch.randn(recipe.training.batch_size, *shape).contiguous(memory_format=torch.channels_last),
        torch.zeros(recipe.training.batch_size, dtype=torch.long),
    )
    rounds = []
    with reproducible(recipe.training):
        for _ in range(ROUNDS + 1):
            rounds.append([step_seconds(state, images, labels) for state in states])
            print(" ".join(f"{seconds / rounds[-1][0]:.3f}" for seconds in rounds[-1]), flush=True)
    ratios = [sorted(row[i] / row[0] for row in rounds[1:]) for i in range(1, len(states))]  # the first round warms up
    with tempfile.TemporaryDirectory() as folder:
        target = prepare_target(recipe, profile, inspect_network(recipe, shape, classes), Store(Path(folder)).run)
        measured = [target.timer.time(o.widths).ms / target.dense_ms for o in outcomes]
    rows = [row(outcome, share, latency, recipe.training.epochs) for outcome, share, latency in zip(outcomes, ratios, measured, strict=True)]
    result = {"what": "seed 0 of the oracle; times over the dense network's", "rows": rows, **host_facts()}
    (RESULTS / "cost.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def step_seconds(state: TrainState, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the seconds of a training step, over a few."""
    state.network.train()
    started = time.perf_counter()
    for _ in range(STEPS):
        state.backward(functional.cross_entropy(state.network(images), labels))
        state.step(0.01)
    return (time.perf_counter() - started) / STEPS


def row(outcome: Outcome, shares: list[float], latency: float, cycle: int) -> dict[str, object]:
    """Return what one pruned network costs."""
    share = statistics.median(shares)
    spent = outcome.epoch + (cycle - outcome.epoch) * share
    return {
        "budget": outcome.setting.budget,
        "criterion": outcome.setting.criterion,
        "step": {"median": share, "minimum": shares[0], "maximum": shares[-1]},
        "latency_predicted": outcome.predicted,
        "latency_measured": latency,
        "training_time_over_train_prune_finetune": {f"{length} epochs": spent / (cycle + length * share) for length in FINETUNE},
    }


if __name__ == "__main__":
    main()
