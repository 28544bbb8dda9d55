"""When to prune, on a set and a recipe like a user's: Bonsai's default against the plain ways, at the same widths.

    python benchmarks/moments.py [--seeds 3 --workers 2]      # results/moments.json

40 letters (`letters.py`), the network and the recipe that `bonsai init` writes for them, 38 % of the dense network's MACs. The widths are those that
Bonsai selects at its trigger; all of Bonsai's ways keep them, and Torch-Pruning's uniform ratio comes to the same MACs. Networks are scored in
FP32 on 4,000 test images.

Every way but `epi short` sees as many training images as the last two: a cycle and a half. Early cuts stretch the rest of their cycle to that.

| way | the network is pruned |
|---|---|
| epi | where EPI fires, by the criterion of the recipe: the default moment |
| epi short | the same, and the branch ends with the cycle |
| epi magnitude_l2 | where EPI fires by magnitudes |
| initialisation | before any training, by the criterion of the recipe |
| trained | after the whole cycle, with half a cycle of fine-tuning |
| torch-pruning uniform | after the whole cycle, with half a cycle of fine-tuning |
"""

import argparse
import copy
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from arena import mean_interval
from letters import draw_letters
from torch import nn

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.targets import prepare_target
from bonsai.pipeline.run.trunk import segment_stops, trunk_inputs
from bonsai.pipeline.starting.scaffold import Ask, scaffold
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_scores
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.epi import over_window, settled, similarity, threshold
from bonsai.stages.pruning.groups import WidthPlan, Widths
from bonsai.stages.pruning.limits import least_channels
from bonsai.stages.pruning.policy import FinetuneConfig, RecoverConfig
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import Scores, normalise
from bonsai.stages.selection.operator_records import count_macs_at
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.subnetwork import Ranking
from bonsai.stages.selection.values import values_of
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.recover import recover
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.evaluation import evaluate
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.rates import half_cosine
from bonsai.stages.training.state import TrainState, reproducible

RESULTS = Path(__file__).parent / "results" / "moments.json"
WAYS = ("dense", "epi", "epi short", "initialisation", "trained", "torch-pruning uniform", "epi magnitude_l2")
MACS = 0.38
"""Of the dense network's, that every way keeps."""
FINETUNE_LR = 0.02


class Outcome(Record):
    """What became of one way with one seed.

    Attributes:
        epoch: When it was pruned.
        curve: EPI by check up to there, where it was asked.
        test_top1: Ratio 0-1.
    """

    seed: int
    way: str
    epoch: float
    curve: tuple[float | None, ...] = ()
    macs: int
    test_top1: float


class Bench:
    """One seed: the dense training and what it takes to prune it."""

    def __init__(self, seed: int, recipe_file: Path, store: Store) -> None:
        overrides = {"model.seed": seed, "training.seed": seed, "training.threads": 1}
        self.seed, self.store = seed, store
        self.recipe: Recipe = load_recipe(str(recipe_file), overrides)
        self.dataset: Dataset = store.run(prepare, data=self.recipe.data, content=source_digest(self.recipe.data))
        self.network: Network = inspect_network(self.recipe, self.dataset.image_shape, len(self.dataset.classes))
        self.stops, self.total = segment_stops(self.recipe, self.dataset.sizes["train"])
        self.target = prepare_target(self.recipe, load_profile("x86-avx512-vnni", {"budget.latency": 0.9}), self.network, store.run)
        self.finetune = FinetuneConfig(epochs=round(self.recipe.training.epochs / 2), lr=FINETUNE_LR)

    def segment(self, stop: int) -> Checkpoint:
        """Return the trunk at a check, at 0 or at its end."""
        found: Checkpoint = self.store.run(initialise, dataset=self.dataset, model=self.recipe.model, weights=None)
        for step in [0] if stop == 0 else [step for step in (*self.stops, self.total) if step <= stop]:
            found = self.store.run(train_dense, **trunk_inputs(self.recipe, self.dataset, self.network.groups), previous=found, stop=step)
        return found

    def epoch(self, stop: int) -> float:
        """Return a step in epochs."""
        return stop * self.recipe.training.epochs / self.total

    def scores(self, segment: Checkpoint, criterion: Criterion) -> Scores:
        """Return the scores that EPI and selection see."""
        return normalise(load_scores(segment, criterion), self.network.groups, self.recipe.prune.normalisation)

    def widths(self, segment: Checkpoint) -> tuple[Widths, float]:
        """Return the widths that Bonsai selects at a segment within the latency that leaves `MACS` of the dense network, and that latency."""
        target, dense = self.target, count_macs_at(self.network.operators, self.network.dense_widths)
        scores = {group: vector.tolist() for group, vector in self.scores(segment, self.recipe.prune.criterion).items()}
        values = values_of(self.recipe.prune.value, scores, target.options, self.network.operators)
        limits = np.linspace(target.floor_ms * 1.001, target.latency(self.network.dense_widths), 200)
        found = [(select_widths(values, target.options, target.latency, float(limit)).widths, float(limit)) for limit in limits]
        return min(found, key=lambda pair: abs(count_macs_at(self.network.operators, pair[0]) - MACS * dense))

    def trigger(self, criterion: Criterion) -> tuple[int, tuple[float | None, ...]]:
        """Return the step at which EPI fires, and its curve."""
        config, seen = self.recipe.prune.epi, []
        _, limit = self.widths(self.segment(self.stops[config.first_check - 1]))
        least = {group.name: least_channels(group, self.recipe.prune.floor) for group in self.network.groups}
        ranking = Ranking(self.target.latency, self.target.options, limit, least)
        curve: list[float | None] = []
        for stop in self.stops:
            seen.append(ranking.keep(self.scores(self.segment(stop), criterion)))
            curve = over_window(similarity, seen, config.window)
            if settled(curve, config, threshold(config, criterion)):
                return stop, tuple(curve)
        return self.stops[-1], tuple(curve)

    def run(self, way: str) -> Outcome:
        """Train one way and score it."""
        name, _, other = way.partition(" ")
        criterion: Criterion = "magnitude_l2" if other == "magnitude_l2" else self.recipe.prune.criterion
        curve: tuple[float | None, ...] = ()
        step = 0 if name == "initialisation" else self.total
        if name == "epi":
            step, curve = self.trigger(criterion)
        widths, _ = self.widths(self.segment(self.stops[self.recipe.prune.epi.first_check - 1]))
        if way == "dense":
            network = load_network(self.segment(self.total))
        elif name == "torch-pruning":
            network = self._torch_pruning(count_macs_at(self.network.operators, widths))
        else:
            longer = self.recipe.training.epochs + self.finetune.epochs - round(self.epoch(step))
            length = RecoverConfig(epochs=None if name == "trained" or other == "short" else longer)
            network = self._branch(self.segment(step), widths, criterion, self.finetune if name == "trained" else None, length)
        images, labels = load_split(self.dataset, "test")
        macs = count_macs(network, self.dataset.image_shape)
        return Outcome(seed=self.seed, way=way, epoch=self.epoch(step), curve=curve, macs=macs, test_top1=evaluate(network, images, labels, CLASSIFICATION))

    def _branch(self, segment: Checkpoint, widths: Widths, criterion: Criterion, finetune: FinetuneConfig | None, length: RecoverConfig) -> nn.Module:
        common = {"dataset": self.dataset, "training": self.recipe.training, "finetune": finetune}
        plan = {"plan": WidthPlan(widths=widths), "reselection": None, "criterion": criterion, "schedule": ScheduleConfig(), "batchnorm_batches": 18}
        cut = self.store.run(prune, dense=segment, **common, **plan)
        return load_network(self.store.run(recover, pruned=cut, **common, length=length, distill=None, teacher=None))

    def _torch_pruning(self, goal: int) -> nn.Module:
        """Prune the trained network by Torch-Pruning's uniform ratio that comes nearest to the MACs, and fine-tune it."""
        trained, shape = load_network(self.segment(self.total)).eval(), self.dataset.image_shape
        head = [module for module in trained.modules() if isinstance(module, nn.Linear)]

        def pruned(percent: int) -> nn.Module:
            network = copy.deepcopy(trained)
            ignored = [module for module, kept in zip(network.modules(), trained.modules(), strict=True) if kept in head]
            importance = tp.importance.GroupMagnitudeImportance(p=2)
            tp.pruner.BasePruner(network, torch.zeros(2, *shape), importance=importance, pruning_ratio=percent / 100, ignored_layers=ignored).step()
            return network

        network = min((pruned(percent) for percent in range(5, 90)), key=lambda found: abs(count_macs(found, shape) - goal))
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        training, per_epoch = self.recipe.training, self.total // self.recipe.training.epochs
        steps = self.finetune.epochs * per_epoch
        with reproducible(training), tempfile.TemporaryDirectory() as resume:
            phase = Phase("branch", self.dataset, training, Path(resume))
            state = TrainState(network.to(memory_format=torch.channels_last), training)  # type: ignore[call-overload]  # torch's stub lacks this form
            phase.train(state, (), start=self.total, stop=self.total + steps, rate=lambda step: half_cosine(FINETUNE_LR, step - self.total, steps))
        return network


def run_seed(seed: int, ways: Sequence[str], recipe_file: Path, store: Path) -> list[dict[str, Any]]:
    """Run the ways of one seed; each stands in the store for a later call."""
    torch.set_num_threads(1)
    os.chdir(recipe_file.parent)
    bench, found = Bench(seed, recipe_file, Store(store)), []
    for way in ways:
        found.append(bench.run(way).model_dump(mode="json"))
        print(f"seed {seed}: {found[-1]}", flush=True)
    return found


def main() -> None:
    """Draw the set, write the recipe, run what is missing, summarise."""
    parser = argparse.ArgumentParser(description="When to prune, on a set and a recipe like a user's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="seeds at a time")
    parser.add_argument("--folder", type=Path, default=None, help="keep images, recipe and store here; a temporary folder otherwise")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="moments-"))).resolve()
    draw_letters(folder / "images")
    recipe_file = folder / "my-recipe.yaml"
    if not recipe_file.exists():
        scaffold(Ask(place=folder, data=folder / "images"))
    outcomes = [Outcome.model_validate(row) for row in json.loads(RESULTS.read_text())["outcomes"]] if RESULTS.exists() else []
    known = {(outcome.seed, outcome.way) for outcome in outcomes}
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        missing = {seed: [way for way in WAYS if (seed, way) not in known] for seed in range(options.seeds)}
        futures = [pool.submit(run_seed, seed, ways, recipe_file, folder / "store") for seed, ways in missing.items() if ways]
        for future in as_completed(futures):
            outcomes += [Outcome.model_validate(row) for row in future.result()]
            save(outcomes)
    save(outcomes)


def save(outcomes: Sequence[Outcome]) -> None:
    """Write the outcomes with a summary in front: points of test top-1, and how far the default is ahead of each way."""
    by_way = {way: {o.seed: 100 * o.test_top1 for o in outcomes if o.way == way} for way in WAYS}
    default = by_way["epi"]
    summary = {
        way: {
            "top1": mean_interval(list(found.values())),
            "default_ahead": mean_interval([default[seed] - value for seed, value in found.items() if seed in default]),
            "epoch": [o.epoch for o in outcomes if o.way == way],
            "macs": [o.macs for o in outcomes if o.way == way],
        }
        for way, found in by_way.items()
        if found and default
    }
    RESULTS.write_text(json.dumps({"summary": summary, **host_facts(), "outcomes": [o.model_dump(mode="json") for o in outcomes]}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
