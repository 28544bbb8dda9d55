"""Bonsai's default against the plain ways, at equal latency and equal training.

    python benchmarks/plain_ways.py --folder DIR [--data FASHION_MNIST]      # results/plain_ways.json; goes on row by row
    python benchmarks/plain_ways.py --device-only --folder DIR              # before that, on a quiet machine: measures plain_ways-devices.json
    python benchmarks/plain_ways.py --summarise                             # runs nothing: writes the tables of docs/pruning.md

A seed takes about two hours of one core, of which `--networks small` takes 40 minutes (an estimate).

| way | |
|---|---|
| bonsai | the recipe of `bonsai init`: cut where EPI fires by `bn_gradient`, then a recovery of its own length (`auto`, without a gate to reach) |
| torch-pruning uniform | the trained network, the same ratio of every group; fine-tuning at two rates, of which the better one on validation images counts |
| torch-pruning global | the same with all groups ranked together |
| initialisation | cut before any training, by the same criterion and the same choice of widths as `bonsai` |
| narrower | the same network with fewer channels, trained from the beginning |

**Latency**: FP32 on this machine at batch 8, by a latency model that Bonsai fits to timed networks (`plain_ways-devices.json`). The plain ways get the
largest network within the limit. Channels are multiples of 8; a width between two multiples costs as much as the larger one.

**Training** is counted in dense epochs: a step of a smaller network costs its share of the dense step's multiply-accumulates, and 0.2 at least, as in
`prune.recover`. Every way gets what `bonsai` takes, which is a cycle and half a cycle of fine-tuning.

**Sizes**: three tasks (`TASKS`) of about 1,600 training and 2,000 test images, batches of 32, cycles of 4 and 12 epochs. `small` is the
network that `init` writes, of width 48; `resnet8` has width 40. Rows come seed by seed and budget by budget, so that a part of them is a balanced
comparison already.
"""

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from arena import HERE, RESULTS, Device
from bench import Bench, cut_by_torch_pruning
from fashion import DEBIAN
from plain_ways_page import DENSE, MARK, OURS, Key, Row, tables, write_between
from rows import read_rows, save_rows
from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.targets import prepare_target
from bonsai.pipeline.starting.networks import CLASSIFIER
from bonsai.pipeline.starting.trained import RATE, WARMUP
from bonsai.profiles.loader import load_profile
from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.pruning.policy import RecoverConfig
from bonsai.stages.pruning.recovery import LEAST_SHARE, Goal
from bonsai.stages.steps.recover import recover
from bonsai.stages.store.store import Store
from bonsai.stages.training.rates import half_cosine

FILE = RESULTS / "plain_ways.json"
DEVICES = RESULTS / "plain_ways-devices.json"
TASKS = {
    "capitals": 'name: "capitals:load"',
    "fashion": 'name: "fashion:load", options: {root: "FOLDER", train: 2000, test: 2000}, validation: 0.2',
    "capitals, 16 pixels": 'name: "capitals:load", options: {size: 16}',
}
NETWORKS = {"small": ("small:build", 48), "resnet8": ("resnet8", 40)}
"""Factory and channels of the first layer, so many that 15 % of the latency leave a choice. `small` is the network that `init` writes."""
CYCLES, BUDGETS = (4, 12), (0.3, 0.15, 0.5)
MULTIPLE, BATCH, FITTED_AT = 8, 8, 0.3
LR = 0.035
FINETUNE_RATES = (0.3, 1.0)
"""Highest learning rates of a fine-tuning, as fractions of the cycle's."""
RECIPE = """\
name: plain-ways
description: The recipe that `init` writes, on a set of this benchmark
model: {{name: "{model}", options: {{width: {width}}}, seed: {seed}}}
data: {{{data}}}
training: {{epochs: {epochs}, batch_size: 32, lr: {lr}, warmup_epochs: 1, seed: {seed}, threads: 1, augment: {{rotate: 10, shift: 0.06, zoom: 0.1}}}}
timing: {{runs: 200, seconds: 1, fitting: 16, tries: 1}}
prune: {{epi: {{every: 0.01, latest: 0.25}}, criterion: bn_gradient, recover: {{epochs: auto}}}}
"""


class Case:
    """A task, a network, a cycle and a seed: the dense training and every way to a smaller network.

    Args:
        key: Any row of the case.
        folder: Holds the recipe, the store and the module `small`.
        data: Folder of Fashion-MNIST.
        tuned: Epochs of a fine-tuning that takes the cycle's place, from the weights at that cycle's end; None starts from random weights.
    """

    def __init__(self, key: Key, folder: Path, data: Path, tuned: int | None = None) -> None:
        self.model, self.width = NETWORKS[key.network]
        facts = {
            "model": self.model,
            "width": self.width,
            "seed": key.seed,
            "epochs": key.cycle,
            "lr": LR,
            "data": TASKS[key.task].replace("FOLDER", str(data)),
        }
        file = folder / "recipe.yaml"
        file.write_text(RECIPE.format(**facts))
        self.key, self.cycle = key, key.cycle
        self.bench = Bench(load_recipe(str(file)), Store(folder / "store"))
        if tuned:
            given, changes = self.bench.segment(self.bench.total), {"training.epochs": tuned, "training.lr": LR * RATE, "training.warmup_epochs": WARMUP}
            self.bench = Bench(load_recipe(str(file), changes), self.bench.store, given)
        self.device = self._device(f"{key.task}, {key.network}")
        self.shape, self.classes = self.bench.dataset.image_shape, len(self.bench.dataset.classes)

    def run(self, key: Key) -> Row:
        """Train one way and score it."""
        started, way = time.process_time(), WAYS[key.way]
        made = way(self, key.budget)
        seconds = time.process_time() - started
        share = self.share(made.network)
        cost = made.before + max(share, LEAST_SHARE) * made.after
        facts = {"latency": self.device.model.latency(self.widths(made.network)) / self.device.dense_ms, "macs": share, "cost": cost, "seconds": seconds}
        return Row(**key._asdict(), before=made.before, after=made.after, top1=self.bench.top1(made.network), **facts)

    def dense(self, _: float) -> "Made":
        """Train the dense network to the end of its cycle."""
        return Made(self.trained, self.cycle, 0)

    def bonsai(self, budget: float) -> "Made":
        """Cut where EPI fires, and recover for as long as `auto` says."""
        criterion = self.bench.recipe.prune.criterion
        return self.cut_at(self.epi(budget, criterion), budget, criterion, self.bench.recipe.prune.recover)

    def initialisation(self, budget: float) -> "Made":
        """Cut before any training, and train for as long as costs the same."""
        return self.cut_at(0, budget, self.bench.recipe.prune.criterion)

    def uniform(self, budget: float) -> "Made":
        """Cut the trained network by one ratio."""
        return self.fine_tuned(budget, ranked=False)

    def ranked(self, budget: float) -> "Made":
        """Cut the trained network by one threshold."""
        return self.fine_tuned(budget, ranked=True)

    def narrower(self, budget: float) -> "Made":
        """Train the widest network of the family that meets the limit."""
        network = self._first_within((self._build(width) for width in range(self.width - 1, 0, -1)), budget)
        epochs = max(round(self.training_left(budget, network)), 1)
        training = self.bench.recipe.training.model_copy(update={"epochs": epochs})
        return Made(self.bench.train(network, training, start=0, steps=epochs * self.bench.per_epoch), 0, epochs)

    def epi(self, budget: float, criterion: Criterion) -> int:
        """Return the step at which EPI fires."""
        limit = self.device.within(budget, "none")
        return self.bench.trigger(limit.latency, limit.options, limit.limit_ms, criterion)[0]

    def cut_at(self, step: int, budget: float, criterion: Criterion, length: RecoverConfig | None = None) -> "Made":
        """Cut a segment and let the rest of the cycle take so long; without a length for as long as costs what `bonsai` takes."""
        bench, segment = self.bench, self.bench.segment(step)
        widths = self.device.within(budget, "none").choose(bench.scores(segment, criterion), bench.network.groups)
        cut = bench.cut(segment, widths, criterion)
        goal = Goal(max_drop=None, min_metric=None) if length else None
        length = length or RecoverConfig(epochs=max(round(self.training_left(budget, load_network(cut))), 1))
        training = {"dataset": bench.dataset, "training": bench.recipe.training, "finetune": None, "distill": None, "teacher": None}
        found = bench.store.run(recover, pruned=cut, length=length, goal=goal, **training)
        return Made(load_network(found), bench.epoch(step), (found.step - step) / bench.per_epoch)

    def fine_tuned(self, budget: float, *, ranked: bool) -> "Made":
        """Cut the trained network by Torch-Pruning and fine-tune it for as long as costs the same, at the rate that is better on the validation images."""
        pruned = (cut_by_torch_pruning(self.trained, self.shape, percent / 100, ranked=ranked, multiple=MULTIPLE) for percent in range(1, 100))
        network, bench = self._first_within(pruned, budget), self.bench
        steps = max(round(self.training_left(budget, network, self.cycle) * bench.per_epoch), 1)

        def tuned(fraction: float) -> nn.Module:
            def rate(step: int) -> float:
                return half_cosine(fraction * bench.recipe.training.lr, step - bench.total, steps)

            return bench.train(copy.deepcopy(network), bench.recipe.training, start=bench.total, steps=steps, rate=rate, settle=True)

        best = max(map(tuned, FINETUNE_RATES), key=lambda found: bench.top1(found, "validation"))
        return Made(best, self.cycle, steps / bench.per_epoch)

    @cached_property
    def trained(self) -> nn.Module:
        """The dense network at the end of its cycle."""
        return load_network(self.bench.segment(self.bench.total))

    def training_left(self, budget: float, network: nn.Module, before: float = 0.0) -> float:
        """Return the epochs of a network that cost what `bonsai` takes for the same budget, less the dense epochs before."""
        made = self.bonsai(budget)
        total = made.before + max(self.share(made.network), LEAST_SHARE) * made.after
        return (total - before) / max(self.share(network), LEAST_SHARE)

    def share(self, network: nn.Module) -> float:
        """Return a network's multiply-accumulates over the dense one's."""
        return count_macs(network, self.shape) / count_macs(self._build(self.width), self.shape)

    def widths(self, network: nn.Module) -> Widths:
        """Return a network's channels by group."""
        return {name: network.get_submodule(name).out_channels for name in self.bench.network.dense_widths}  # type: ignore[misc]

    def _build(self, width: int) -> nn.Module:
        model = ModelConfig(name=self.model, options={"width": width}, seed=self.key.seed)
        return build_network(model, self.shape, self.classes)

    def _first_within(self, networks: Iterable[nn.Module], budget: float) -> nn.Module:
        limit = budget * self.device.dense_ms
        return next(network for network in networks if self.device.model.latency(self.widths(network)) <= limit)

    def _device(self, name: str) -> Device:
        """Return the latency model of a task's network, measured the first time."""
        known = json.loads(DEVICES.read_text()) if DEVICES.exists() else {}
        if name not in known:
            multiple = dict.fromkeys(("fp32", "fp16", "int8"), MULTIPLE)
            changes = {"target.precision": "fp32", "target.batch": BATCH, "channel_multiple": multiple, "budget.latency": FITTED_AT}
            target = prepare_target(self.bench.recipe, load_profile("local-cpu", changes), self.bench.network, self.bench.store.run)
            found = Device(dense_ms=target.latency(self.bench.network.dense_widths), model=target.chooser.reselection(target.limit_ms))
            known[name] = found.model_dump(mode="json")
            DEVICES.write_text(json.dumps(known) + "\n")
        return Device.model_validate(known[name])


class Made(NamedTuple):
    """A trained network, with its dense epochs before the cut and its epochs after it."""

    network: nn.Module
    before: float
    after: float


WAYS: dict[str, Callable[[Case, float], Made]] = {
    DENSE: Case.dense,
    OURS: Case.bonsai,
    "torch-pruning uniform": Case.uniform,
    "torch-pruning global": Case.ranked,
    "initialisation": Case.initialisation,
    "narrower": Case.narrower,
}


def keys(seeds: int) -> Iterator[Key]:
    """Yield all rows in the order in which they run."""
    for seed, budget, cycle, network, task, way in product(range(seeds), BUDGETS, CYCLES, NETWORKS, TASKS, WAYS):
        yield Key(seed, task, network, cycle, 1 if way == DENSE else budget, way)


def read() -> list[Row]:
    """Return what earlier runs left."""
    return read_rows(FILE, Row)


def put_network(folder: Path) -> Path:
    """Write the network that `init` writes, and return the folder's whole path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.py").write_text(CLASSIFIER)
    return folder.resolve()


def main() -> None:
    """Run what is missing, row by row."""
    parser = argparse.ArgumentParser(description="Bonsai's default against the plain ways")
    parser.add_argument("--folder", type=Path, default=None, help="keep networks and the store here; a temporary folder otherwise")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None, help="begin no row after so many minutes")
    for name, whole in (("tasks", TASKS), ("networks", NETWORKS), ("cycles", CYCLES)):
        parser.add_argument(f"--{name}", nargs="+", type=type(next(iter(whole))), choices=whole, default=whole, help="run these alone")
    parser.add_argument("--device-only", action="store_true", help="measure the latency models and stop: on a quiet machine, before the first row")
    parser.add_argument("--summarise", action="store_true", help="run nothing: write the tables of docs/pruning.md")
    options = parser.parse_args()
    if options.summarise:
        write_between(MARK, tables(read()))
        return
    torch.set_num_threads(1)
    folder = put_network(options.folder or Path(tempfile.mkdtemp(prefix="plain-ways-")))
    data, began = options.data.resolve(), time.monotonic()
    os.chdir(HERE)  # where `fashion` is imported from
    if options.device_only:
        for task, network in product(options.tasks, options.networks):
            device = Case(Key(0, task, network, CYCLES[0], 1, DENSE), folder, data).device
            print(f"{task}, {network}: dense {device.dense_ms:.3f} ms", flush=True)
        return
    rows, case = read(), None
    known = {row.key for row in rows}
    for key in keys(options.seeds):
        if key in known or key.task not in options.tasks or key.network not in options.networks or key.cycle not in options.cycles:
            continue
        if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
            return
        if case is None or case.key[:4] != key[:4]:
            case = Case(key, folder, data)
        rows.append(case.run(key))
        known.add(key)
        print(rows[-1].model_dump_json(), flush=True)
        save_rows(FILE, rows)


if __name__ == "__main__":
    main()
