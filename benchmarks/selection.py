"""What a width is worth: values and selections of the field at equal latency and equal training.

python benchmarks/selection.py                # results/selection.json, selection.svg; about an hour on two cores
python benchmarks/selection.py --latency      # afterwards, on a quiet machine: times the chosen networks against the dense one
python benchmarks/selection.py --device-only  # measures the device's latency model anew: results/selection-device.json

ResNet-20 of width 48 on `glyphs` at 16 pixels, ten epochs, the branch leaves at the third: small enough for two cores, and wide enough that there is
something to choose (the narrowest network takes a tenth of the dense latency). All methods keep the channels of highest magnitude, so that they differ in
the widths alone, and networks of the same widths are trained once.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arena import HERE, RESULTS, Device, Setting, Trunk, mean_interval, shown
from bench import BATCHNORM_BATCHES
from sensitivity import Sensitivity, values_alone, values_in_pairs

from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import ReadyTarget, prepare_target
from bonsai.profiles.latency import LatencyTable, Line
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_scores
from bonsai.stages.pruning.criteria import Criterion, Normalisation
from bonsai.stages.pruning.groups import WidthPlan, Widths
from bonsai.stages.pruning.policy import RecoverConfig
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import normalise
from bonsai.stages.selection.baselines import global_ranking, one_sided_knapsack, uniform
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.problem import Problem, Values
from bonsai.stages.selection.search import solve
from bonsai.stages.selection.terms import Choice, Options, Terms
from bonsai.stages.selection.values import reciprocal_values, values_from_scores
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.recover import recover
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.evaluation import evaluate

DEVICE = RESULTS / "selection-device.json"
FILE = RESULTS / "selection.json"
OVERRIDES: dict[str, Any] = {"training.epochs": 10, "data.options": {"size": 16, "test": 9920}, "model.options": {"width": 48}}
EPOCH = 3.0
KEEP: Criterion = "magnitude_l2"
EVERYWHERE = ("reciprocal", "uniform", "global", "knapsack", "magnitude_l2")
AT_LEAST = (
    "reciprocal widths",
    "bn_gradient",
    "parameters",
    "sensitivity",
    "sensitivity, pairs",
    "bn_gradient, in steps",
)
BUDGETS = {0.2: (*EVERYWHERE, *AT_LEAST), 0.3: EVERYWHERE, 0.5: ("reciprocal", "uniform", "global", "magnitude_l2")}
STEPS = ScheduleConfig(name="linear", steps=8, iterations=24)
DESCRIPTIONS = {
    "reciprocal": "minus the reciprocal of the kept share of `bn_gradient` scores, times the operators on the group",
    "reciprocal widths": "the same of the kept share of channels: no data",
    "uniform": "the same share of every group",
    "global": "Torch-Pruning: one threshold over all groups, magnitude over the group's mean, bisected",
    "knapsack": "HALP: each group charged for its own output channels, `bn_gradient` scores",
    "magnitude_l2": "sum of the kept channels' L2 norms",
    "bn_gradient": "sum of the kept channels' `bn_gradient` scores, averaged over the trunk",
    "parameters": "number of weights kept",
    "sensitivity": "rise of the loss after BatchNorm's re-estimation, by group and width",
    "sensitivity, pairs": "the same with a correction for every pair of groups",
    "bn_gradient, in steps": "as bn_gradient, cut in 8 steps and chosen again before each",
}


class Result(Record):
    """What became of one method at one budget and seed."""

    seed: int
    budget: float
    method: str
    widths: dict[str, int]
    predicted: float
    top1: float
    seconds: float
    measured: float | None = None


class WeightTable(LatencyTable):
    """The number of weights in place of the milliseconds."""

    def __init__(self) -> None:
        """Measure nothing."""

    def lookup_ms(self, operator: OperatorClass, ci: Any, co: Any) -> Any:
        """Return the weights of an operator."""
        return operator.weights(ci, co) + 0 * ci * co


def choose(method: str, trunk: Trunk, segment: Checkpoint, device: Device, budget: float) -> Widths:
    """Return the widths of a method."""
    options: Options = device.model.options
    terms, limit = device.model.latency.terms(options), budget * device.dense_ms

    def scored(criterion: Criterion, normalisation: Normalisation = "none") -> Values:
        scores = normalise(load_scores(segment, criterion), trunk.groups, normalisation)
        return values_from_scores({name: scores[name].tolist() for name in options}, options)

    baselines: dict[str, tuple[Callable[[Problem], Choice], Values]] = {
        "uniform": (uniform, scored("magnitude_l2")),
        "global": (global_ranking, scored("magnitude_l2", "local")),
        "knapsack": (one_sided_knapsack, scored("bn_gradient")),
    }
    if method in baselines:
        select, values = baselines[method]
        return terms.widths_at(select(Problem.of(values, terms, limit)))
    if method == "parameters":
        weights: Terms = NetworkLatency(WeightTable(), device.model.operators, Line()).terms(options)
        return solve(Problem(terms, weights, limit)).widths
    if method.startswith("reciprocal"):
        scores = {name: vector.tolist() for name, vector in load_scores(segment, "bn_gradient").items() if name in options}
        flat = {name: [1.0] * len(vector) for name, vector in scores.items()}
        worth = reciprocal_values(flat if method.endswith("widths") else scores, options, device.model.operators)
        return solve(Problem.of(worth, terms, limit)).widths
    if method.startswith("sensitivity"):
        measured = json.loads(sensitivity_file(trunk, segment, options).read_text())
        curves = {name: {int(width): loss for width, loss in curve.items()} for name, curve in measured["curves"].items()}
        pairs = {(a, b): loss for a, b, loss in measured["pairs"]}
        losses = values_in_pairs(curves, pairs, options) if method.endswith("pairs") else values_alone(curves, options)
        return solve(Problem(terms, losses, limit)).widths
    criterion: Any = method.removesuffix(", in steps")
    return solve(Problem.of(scored(criterion), terms, limit)).widths


def sensitivity_file(trunk: Trunk, segment: Checkpoint, options: Options) -> Path:
    """Return a file with the losses that both sensitivities need, measured once per segment."""
    file = trunk.store.root / f"sensitivity-{segment.key}.json"
    if not file.exists():
        probe = Sensitivity(segment, trunk.dataset, trunk.recipe.training, trunk.groups, KEEP)
        started = time.perf_counter()
        curves, pairs = probe.curves(options), [(a, b, loss) for (a, b), loss in probe.at_half(options).items()]
        text = json.dumps({"curves": curves, "pairs": pairs, "seconds": time.perf_counter() - started})
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(text)
        part.replace(file)
    return file


def grow(seed: int, folder: Path) -> tuple[Trunk, Checkpoint]:
    """Return the trunk of a seed and its segment at the branch."""
    torch.set_num_threads(1)
    trunk = Trunk(Setting(seed=seed, budget=0.5), "cpu", OVERRIDES, Store(folder))
    return trunk, trunk.segment(EPOCH)


def train_one(seed: int, budget: float, method: str, folder: Path) -> tuple[Trunk, Checkpoint]:
    """Choose widths, cut and train on; return the trunk and the finished network."""
    trunk, segment = grow(seed, folder)
    device = Device.model_validate_json(DEVICE.read_text())
    steps, training = method.endswith(", in steps"), trunk.recipe.training
    cut = trunk.store.run(
        prune,
        dense=segment,
        plan=WidthPlan(widths=choose(method, trunk, segment, device, budget)),
        reselection=device.within(budget, "none") if steps else None,
        dataset=trunk.dataset,
        training=training,
        criterion="bn_gradient" if steps else KEEP,
        schedule=STEPS if steps else ScheduleConfig(),
        finetune=None,
        batchnorm_batches=BATCHNORM_BATCHES,
    )
    return trunk, trunk.store.run(
        recover, pruned=cut, dataset=trunk.dataset, training=training, length=RecoverConfig(), finetune=None, distill=None, teacher=None
    )


def run_one(seed: int, budget: float, method: str, folder: Path) -> Result:
    """Train a method's network and score it."""
    started = time.perf_counter()
    trunk, final = train_one(seed, budget, method, folder)
    device = Device.model_validate_json(DEVICE.read_text())
    images, labels = load_split(trunk.dataset, "test")
    widths = {name: len(channels) for name, channels in final.kept.items()}
    return Result(
        seed=seed,
        budget=budget,
        method=method,
        widths=widths,
        predicted=device.model.latency(widths) / device.dense_ms,
        top1=evaluate(load_network(final), images, labels, CLASSIFICATION),
        seconds=time.perf_counter() - started,
    )


def ready_target(folder: Path) -> ReadyTarget:
    """Return this machine with a fitted latency model of the dense network."""
    recipe, (profile,) = load(str(HERE / "arena.yaml"), str(HERE / "arena-cpu.yaml"), OVERRIDES)
    return prepare_target(recipe, profile, inspect_network(recipe, (1, 16, 16), 62), Store(folder).run)


def main() -> None:
    """Run what is missing, then summarise and draw."""
    parser = argparse.ArgumentParser(description="What a width is worth")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store", type=Path, default=None, help="keep the trunks here; a temporary folder otherwise")
    parser.add_argument("--latency", action="store_true", help="train nothing: time the chosen networks")
    parser.add_argument("--device-only", action="store_true", help="measure the device's latency model and stop")
    parser.add_argument("--summarise", action="store_true", help="run nothing: summarise and draw what the results hold")
    options = parser.parse_args()
    folder = options.store or Path(tempfile.mkdtemp(prefix="selection-"))
    if options.device_only:
        target = ready_target(folder)
        device = Device(dense_ms=target.latency({g.name: g.width for g in target.groups}), model=target.chooser.reselection(target.limit_ms))
        DEVICE.write_text(device.model_dump_json(indent=1) + "\n")
        print(f"dense {device.dense_ms:.3f} ms, narrowest {target.floor_ms / device.dense_ms:.1%} of it")
        return
    results = {(r.seed, r.budget, r.method): r for r in read()}
    if options.latency:
        target = ready_target(folder)
        known: dict[str, float] = {}
        for key, result in results.items():
            name = json.dumps(result.widths, sort_keys=True)
            known[name] = known.get(name) or target.timer.time(result.widths).ms / target.dense_ms
            results[key] = result.model_copy(update={"measured": known[name]})
            write(list(results.values()))
    elif not options.summarise:
        wanted = [(seed, budget, method) for budget, methods in BUDGETS.items() for seed in range(options.seeds) for method in methods]
        missing = [key for key in wanted if key not in results]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            list(pool.map(warm_up, sorted({seed for seed, _, _ in missing}), [folder] * options.seeds))
            futures = [pool.submit(run_one, *key, folder) for key in missing]
            for done, future in enumerate(as_completed(futures), 1):
                result = future.result()
                results[result.seed, result.budget, result.method] = result
                write(list(results.values()))
                print(f"{done}/{len(missing)} seed {result.seed} {result.budget:.0%} {result.method}: {result.top1:.4f} ({result.seconds:.0f} s)", flush=True)
    table = summarise(list(results.values()))
    write(list(results.values()), table)
    draw(table)


def warm_up(seed: int, folder: Path) -> None:
    """Grow the trunk of a seed, and measure its sensitivities."""
    trunk, segment = grow(seed, folder)
    sensitivity_file(trunk, segment, Device.model_validate_json(DEVICE.read_text()).model.options)


def read() -> list[Result]:
    """Return what earlier runs left."""
    return [Result.model_validate(row) for row in json.loads(FILE.read_text())["results"]] if FILE.exists() else []


def write(results: list[Result], summary: object = None) -> None:
    """Write the results with the machine and the versions."""
    ordered = sorted(results, key=lambda r: (r.budget, r.method, r.seed))
    text = json.dumps({"summary": summary, **host_facts(), "results": [r.model_dump(mode="json", exclude_none=True) for r in ordered]}, indent=1)
    part = FILE.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(FILE)


def summarise(results: list[Result]) -> dict[str, dict[str, Any]]:
    """Return, by budget and method, top-1 in percent and its difference from `reciprocal` seed by seed, with 95 % intervals."""
    table: dict[str, dict[str, Any]] = {}
    for budget in sorted({r.budget for r in results}):
        cells = {m: {r.seed: r for r in results if r.budget == budget and r.method == m} for m in BUDGETS[budget]}
        rows: dict[str, dict[str, Any]] = {}
        for method, by_seed in cells.items():
            if not by_seed:
                continue
            pairs = [(r.top1 - cells["reciprocal"][seed].top1) * 100 for seed, r in by_seed.items() if seed in cells["reciprocal"]]
            measured = [r.measured for r in by_seed.values() if r.measured]
            rows[method] = {
                "what": DESCRIPTIONS[method],
                "top1": mean_interval([r.top1 * 100 for r in by_seed.values()]),
                "minus_reciprocal": mean_interval(pairs) if pairs else None,
                "predicted": statistics.mean(r.predicted for r in by_seed.values()),
                "measured": statistics.mean(measured) if measured else None,
                "seeds": len(by_seed),
            }
        table[f"{budget:.0%}"] = dict(sorted(rows.items(), key=lambda row: -row[1]["top1"][0]))
        for method, row in table[f"{budget:.0%}"].items():
            against = shown(row["minus_reciprocal"]) if row["minus_reciprocal"] else ""
            print(f"{budget:.0%}  {method:24} {shown(row['top1']):>14}   against reciprocal {against:>14}   latency {row['measured'] or row['predicted']:.3f}")
    return table


def draw(table: dict[str, dict[str, Any]]) -> None:
    """Draw one panel per budget, best on top."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [len(rows) + 1 for rows in table.values()]
    figure, axes = pyplot.subplots(len(table), 1, figsize=(7, 0.28 * sum(heights) + 1), sharex=True, height_ratios=heights, layout="constrained", squeeze=False)
    for axis, (budget, rows) in zip(axes[:, 0], table.items(), strict=True):
        ordered = list(reversed(rows.items()))
        spread = [row["top1"][1] or np.nan for _, row in ordered]
        axis.errorbar([row["top1"][0] for _, row in ordered], range(len(ordered)), xerr=spread, fmt="o", ms=4, capsize=2)
        axis.set_yticks(range(len(ordered)), [method for method, _ in ordered], fontsize=8)
        axis.set_title(f"{budget} of the dense latency", fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    axes[-1, 0].set_xlabel("test top-1, % (95 % interval over seeds)", fontsize=8)
    figure.savefig(RESULTS / "selection.svg")


if __name__ == "__main__":
    main()
