"""Width selection by local search against the exact optimum (HiGHS), the certified bound and other selections of the field.

python benchmarks/solver.py [--seconds 120]      # results/solver.json

Values are sums of log-normal channel scores, another spread for every group; latency is the roofline of `profiles/x86-avx512-vnni.yaml` at INT8 with
its steps of 16 channels. Only the solvers are compared here: which values end in accurate networks is `selection.py`'s question.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from milp import solve_exactly

from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.profiles.loader import load_profile
from bonsai.profiles.roofline import estimate_us
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.block_losses import BlockLoss, BlockLosses
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.selection.baselines import global_ranking, one_sided_knapsack, uniform
from bonsai.stages.selection.bound import smallest_latency
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import blocks_in
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.terms import Options, Terms
from bonsai.stages.selection.values import values_of
from bonsai.stages.steps.characterize import grid_points
from bonsai.stages.store.manifest import host_facts

RESULTS = Path(__file__).parent / "results" / "solver.json"
STEP = 16
NETWORKS = {
    "resnet20, width 32": (ModelConfig(name="resnet20", options={"width": 32}), (1, 32, 32)),
    "resnet18": (ModelConfig(name="resnet18"), (3, 224, 224)),
    "resnet50": (ModelConfig(name="resnet50"), (3, 224, 224)),
    "mobilenet_v2": (ModelConfig(name="mobilenet_v2"), (3, 224, 224)),
    "densenet121": (ModelConfig(name="densenet121"), (3, 224, 224)),
}
WITH_BLOCKS = ("resnet20, width 32", "resnet50")
"""Networks that are solved once more with residual blocks that may be left out; what a block is worth is random too."""
BUDGETS = (0.7, 0.5, 0.3)
SEEDS = 3
BASELINES = {"uniform": uniform, "global ranking": global_ranking, "one-sided knapsack": one_sided_knapsack}


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description="Width selection against the exact optimum")
    parser.add_argument("--seconds", type=float, default=60, help="time limit of HiGHS a problem")
    options = parser.parse_args()
    rows = []
    problems = [(name, *described, False) for name, described in NETWORKS.items()] + [(f"{name}, blocks", *NETWORKS[name], True) for name in WITH_BLOCKS]
    for name, model, image_shape, blocks in problems:
        latency, widths = describe(model, image_shape, blocks=blocks)
        terms = latency.terms(widths)
        for budget in BUDGETS:
            found = [solve(latency, terms, widths, budget, seed, options.seconds) for seed in range(SEEDS)]
            cells = {key: [value for row in found if (value := row[key]) is not None] for key in found[0]}
            size = round(sum(np.log10(len(choices)) for choices in widths.values()), 1)
            rows.append({"network": name, "groups": len(widths), "networks_log10": size, "budget": budget, **cells})
            shown = "  ".join(f"{key} {statistics.mean(values):.4f}" for key, values in cells.items() if values)
            print(f"{name:20} {budget:.0%}  {shown}", flush=True)
            RESULTS.write_text(json.dumps({**host_facts(), "seconds_limit": options.seconds, "rows": rows}, indent=1) + "\n")


def describe(model: ModelConfig, image_shape: tuple[int, ...], *, blocks: bool) -> tuple[NetworkLatency, Options]:
    """Return the estimated latency of a network and the widths of its groups."""
    network = build_network(model, image_shape, 1000)
    groups = groups_with_blocks(network, image_shape) if blocks else find_groups(network, image_shape)
    operators = list_operators(network, groups, image_shape)
    target = load_profile("x86-avx512-vnni").target
    peak = target.device.peak
    assert peak is not None
    times = {point: estimate_us(*point, peak=peak, precision="int8", batch=1, step=STEP) for point in grid_points(operators, groups, STEP)}
    entries = [Entry(operator=op, ci=ci, co=co, p10_us=us, p50_us=us, reps=0, kernels="roofline") for (op, ci, co), us in times.items()]
    meta = {"source": "estimated", "device": "roofline", "runtime": "none", "runtime_version": "0", "precision": "int8", "batch": 1, "threads": 1, "step": STEP}
    table = LatencyTable(TableMeta.model_validate({**meta, "clock": "none", "statistic": "roofline", "date": ""}), entries)
    return NetworkLatency(table, operators, Line()), {g.name: ((0,) if g.block else ()) + width_options(g, step=STEP, floor=0.1) for g in groups}


def solve(latency: NetworkLatency, terms: Terms, options: Options, budget: float, seed: int, seconds: float) -> dict[str, float | None]:
    """Return times in seconds, and values as shares of the best one known."""
    rng = np.random.default_rng(seed)
    scores = {group: rng.lognormal(rng.normal(0, 0.5), rng.uniform(0.2, 1.0), max(widths)).tolist() for group, widths in options.items()}
    blocks = tuple(BlockLoss(name=block[0], groups=block, loss=rng.uniform(0, 3)) for block in blocks_in(latency.operators))
    losses = BlockLosses(folder=Path(), blocks=blocks, halved={group: 1.0 for block in blocks for group in block.groups})
    values = values_of("sum", scores, options, latency.operators, losses)
    dense_ms, (smallest_ms, _) = terms.total(np.array([len(w) - 1 for w in options.values()])), smallest_latency(terms)
    problem = Problem.of(values, terms, max(budget * dense_ms, 1.02 * smallest_ms))
    started = time.perf_counter()
    ours = select_widths(values, options, latency, problem.limit_ms)
    ours_s = time.perf_counter() - started
    started = time.perf_counter()
    exact, bound = solve_exactly(problem, seconds=seconds)
    milp_s = time.perf_counter() - started
    best = max(ours.value, problem.value(exact) if exact is not None else 0.0)
    found: dict[str, float | None] = {"limit": problem.limit_ms / dense_ms, "search_s": ours_s, "search": ours.value / best, "certified_gap": ours.gap}
    found |= {"milp_s": milp_s, "milp": problem.value(exact) / best if exact is not None else None, "milp_gap": (bound - best) / best}
    return found | {name: None if blocks else problem.value(select(problem)) / best for name, select in BASELINES.items()}


if __name__ == "__main__":
    main()
