"""From one trained network to a half and a quarter of its latency, in a tenth and three tenths of its training.

    python benchmarks/finetune.py --folder DIR [--data FASHION_MNIST]      # results/finetune.json; hours on two cores, goes on where it was stopped

ResNet-8 of width 24, trained on Fashion-MNIST (`fashion.py`) by a plain loop and saved by `torch.save`; three seeds. Latencies are FP32 on this machine,
timed by Bonsai on untrained networks of the same widths, and every way must meet the same limit. Top-1 is of the torch networks on the test images.

| way | |
|---|---|
| given | the trained network itself |
| bonsai | the recipe that `bonsai init --weights` writes, with so many epochs: EPI, distillation from the given network |
| torch-pruning | Torch-Pruning's global ranking by magnitudes, cut at once to multiples of 8 channels; the same epochs, rate and distillation |
| scratch | a narrower ResNet-8 that meets the limit, trained from the beginning for as long as the given network was |
"""

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arena import HERE, RESULTS, mean_interval, shown
from bench import cut_by_torch_pruning, train_network
from fashion import DEBIAN
from torch import nn

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.flow import compress
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.targets import ReadyTarget, prepare_target
from bonsai.pipeline.starting.trained import RATE, WARMUP
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.manifest import host_facts, read_manifest
from bonsai.stages.store.store import Store, load_artifact
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.config import DistillConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.evaluation import evaluate

FILE = RESULTS / "finetune.json"
BUDGETS, SHARES = (0.5, 0.25), (0.1, 0.3)
LR = 0.05
MULTIPLE, STEP = 8, 4
"""Channels that pruned widths are multiples of, and by which the width of a network from scratch is changed."""
RECIPE = """\
name: finetune
description: ResNet-8 on Fashion-MNIST, trained elsewhere
model: {{name: resnet8, options: {{width: {width}}}, weights: given-{seed}.pth, seed: {seed}}}
data: {{name: "fashion:load", options: {{root: "{root}", train: {train}}}, validation: 0.1}}
training: {{epochs: {epochs}, batch_size: 64, lr: {lr}, warmup_epochs: {warmup}, seed: {seed}, threads: {threads}, reference: given}}
prune: {{epi: {{every: 0.01, latest: 0.25}}, criterion: bn_gradient, distill: {{teacher: trained}}}}
"""


class Row(Record):
    """One network.

    Attributes:
        budget: Latency that it may have, as a fraction of the given network's; None for the given one.
        share: Length of the fine-tuning, as a fraction of the given network's training; None where there is none.
        latency: Its latency as a fraction of the given network's, timed on an untrained network of its widths.
        top1: On the test images, of the torch network, 0-1.
        seconds: Wall time of its training alone; for `bonsai` of the whole run, with all timings and the engine.
    """

    seed: int
    way: str
    budget: float | None = None
    share: float | None = None
    latency: float = 1.0
    top1: float
    seconds: float

    @property
    def key(self) -> tuple[int, str, float | None, float | None]:
        """What tells it from the others."""
        return (self.seed, self.way, self.budget, self.share)


class Options(NamedTuple):
    """The command line."""

    folder: Path
    data: Path
    seeds: int
    epochs: int
    train: int
    width: int
    threads: int


class Bench:
    """One seed: the given network, and what every way of making it smaller needs."""

    def __init__(self, seed: int, options: Options) -> None:
        self.seed, self.options, self.store = seed, options, Store(options.folder / "store")
        self.recipe = self.fine_tuning(options.epochs, LR, 1.0)
        self.dataset: Dataset = self.store.run(prepare, data=self.recipe.data, content=source_digest(self.recipe.data))
        self.network: Network = inspect_network(self.recipe, self.dataset.image_shape, len(self.dataset.classes))
        self.file = options.folder / f"given-{seed}.pth"

    def fine_tuning(self, epochs: int, lr: float = LR * RATE, warmup: float = WARMUP) -> Recipe:
        """Write and load the recipe for so many epochs."""
        o, file = self.options, self.options.folder / f"finetune-{self.seed}-{epochs}.yaml"
        facts = {"width": o.width, "seed": self.seed, "root": o.data, "train": o.train, "epochs": epochs, "lr": lr, "warmup": warmup, "threads": o.threads}
        file.write_text(RECIPE.format(**facts))
        return load_recipe(str(file))

    def given(self) -> tuple[nn.Module, float]:
        """Return the given network, trained unless its file is there, and the seconds that took."""
        network, started = self._dense(self.options.width), time.perf_counter()
        if self.file.exists():
            network.load_state_dict(torch.load(self.file, weights_only=True)["state_dict"])
            return network, 0.0
        train_network(network, self.dataset, self.recipe.training)
        torch.save({"state_dict": network.state_dict(), "epoch": self.options.epochs}, self.file)
        return network, time.perf_counter() - started

    def target(self, budget: float) -> ReadyTarget:
        """Return this machine, made ready for a budget; what was timed before is not timed again."""
        return prepare_target(self.recipe, load_profile(*self._profile(budget)), self.network, self.store.run)

    def bonsai(self, budget: float, share: float) -> Row:
        """Run the fine-tuning recipe to its engine."""
        recipe, started = self.fine_tuning(self._epochs(share)), time.perf_counter()
        name, overrides = self._profile(budget)
        file = str(self.options.folder / f"finetune-{self.seed}-{recipe.training.epochs}.yaml")
        changes = {f"profile.{key}": value for key, value in overrides.items()} | {"name": f"finetune-{self.seed}-{share:g}-{budget:g}"}
        (package,) = compress(file, name, changes, store=self.store.root)
        seconds = time.perf_counter() - started
        final = load_artifact(Checkpoint, self.store.root / read_manifest(package.folder).inputs["final"]["artifact"])
        widths = {name: len(channels) for name, channels in final.kept.items()}
        return self._row("bonsai", load_network(final), widths, budget, share, seconds)

    def torch_pruning(self, budget: float, share: float) -> Row:
        """Cut the given network by Torch-Pruning's global ranking, and fine-tune it alike."""
        given, _ = self.given()
        pruned = (cut_by_torch_pruning(given, self.dataset.image_shape, percent / 100, ranked=True, multiple=MULTIPLE) for percent in range(2, 96, 2))
        found = ((network, self._widths(network)) for network in pruned)
        network, widths = self._first_within(found, budget)
        started, training = time.perf_counter(), self.fine_tuning(self._epochs(share)).training
        teacher = Teacher(copy.deepcopy(given), DistillConfig())
        train_network(network, self.dataset, training, settle=True, teacher=teacher)
        return self._row("torch-pruning", network, widths, budget, share, time.perf_counter() - started)

    def scratch(self, budget: float) -> Row:
        """Train a narrower network of the family from the beginning."""
        whole = self.options.width
        found = ((width, {name: round(full * width / whole) for name, full in self.network.dense_widths.items()}) for width in range(whole - STEP, 0, -STEP))
        width, widths = self._first_within(found, budget)
        network, started = self._dense(width), time.perf_counter()
        train_network(network, self.dataset, self.recipe.training)
        return self._row("scratch", network, widths, budget, None, time.perf_counter() - started)

    def _profile(self, budget: float) -> tuple[str, dict[str, Any]]:
        multiple = dict.fromkeys(("fp32", "fp16", "int8"), MULTIPLE)
        return "local-cpu", {"target.precision": "fp32", "channel_multiple": multiple, "budget.latency": budget, "gates.max_drop": 1}

    def _epochs(self, share: float) -> int:
        return max(round(share * self.options.epochs), 1)

    def _dense(self, width: int) -> nn.Module:
        model = ModelConfig(name="resnet8", options={"width": width}, seed=self.seed)
        return build_network(model, self.dataset.image_shape, len(self.dataset.classes))

    def _widths(self, network: nn.Module) -> Widths:
        return {name: int(network.get_submodule(name).out_channels) for name in self.network.dense_widths}  # type: ignore[arg-type]

    def _first_within(self, found: Iterator[tuple[Any, Widths]], budget: float) -> tuple[Any, Widths]:
        """Return the first network that meets the limit; only those that are predicted to be near it are timed."""
        target, seen = self.target(budget), set[tuple[int, ...]]()
        for network, widths in found:
            if tuple(widths.values()) in seen or target.latency(widths) > target.limit_ms * 1.1:
                continue
            seen.add(tuple(widths.values()))
            if target.time_untrained(widths).ms <= target.limit_ms:
                return network, widths
        raise SystemExit(f"no network within {budget:g} of the latency")

    def _row(self, way: str, network: nn.Module, widths: Widths, budget: float, share: float | None, seconds: float) -> Row:
        target = self.target(budget)
        latency = target.time_untrained(widths).ms / target.dense_ms
        return Row(seed=self.seed, way=way, budget=budget, share=share, latency=latency, top1=self.top1(network), seconds=seconds)

    def top1(self, network: nn.Module) -> float:
        """Return the share of the test images that a network gets right."""
        return evaluate(network, *load_split(self.dataset, "test"), CLASSIFICATION)


def rows_of(bench: Bench, known: set[tuple[int, str, float | None, float | None]]) -> Iterator[Row]:
    """Yield the rows of a seed that are not known yet."""

    def missing(way: str, budget: float | None = None, share: float | None = None) -> bool:
        return (bench.seed, way, budget, share) not in known

    given, seconds = bench.given()
    if missing("given"):
        yield Row(seed=bench.seed, way="given", top1=bench.top1(given), seconds=seconds)
    for budget in BUDGETS:
        for share in SHARES:
            if missing("bonsai", budget, share):
                yield bench.bonsai(budget, share)
            if missing("torch-pruning", budget, share):
                yield bench.torch_pruning(budget, share)
        if missing("scratch", budget):
            yield bench.scratch(budget)


def main() -> None:
    """Run what is missing, row by row."""
    parser = argparse.ArgumentParser(description="Fine-tuning to a half and a quarter of the latency")
    parser.add_argument("--folder", type=Path, default=None, help="keep networks, recipes and the store here; a temporary folder otherwise")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=FILE, help="the results, which a later call goes on from")
    for name, default, what in (
        ("seeds", 3, "networks"),
        ("epochs", 20, "training of the given network"),
        ("train", 10_000, "training images"),
        ("width", 24, "channels of the given network's first stage"),
        ("threads", 2, "CPU threads of the training"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=what)
    found = parser.parse_args()
    folder = (found.folder or Path(tempfile.mkdtemp(prefix="finetune-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(folder, found.data.resolve(), found.seeds, found.epochs, found.train, found.width, found.threads)
    out = found.out.resolve()
    known = json.loads(out.read_text()) if out.exists() else {"rows": []}
    for name in ("epochs", "train", "width"):
        if name in known and known[name] != getattr(options, name):
            raise SystemExit(f"{out} has rows of --{name} {known[name]}, not {getattr(options, name)}: give that, or another --out")
    rows = [Row.model_validate(row) for row in known["rows"]]
    os.chdir(HERE)  # where `fashion` is imported from
    for seed in range(options.seeds):
        for row in rows_of(Bench(seed, options), {row.key for row in rows}):
            rows.append(row)
            print(row.model_dump_json(), flush=True)
            save(rows, options, out)
    save(rows, options, out)


def save(rows: list[Row], options: Options, out: Path) -> None:
    """Write the rows with a summary in front: points of top-1 by way, budget and length, and how far `bonsai` is ahead of the others, seed by seed."""
    groups: dict[tuple[str, float | None, float | None], dict[int, Row]] = {}
    for row in rows:
        groups.setdefault((row.way, row.budget, row.share), {})[row.seed] = row
    summary = []
    for (way, budget, share), found in groups.items():
        facts: dict[str, Any] = {"way": way, "budget": budget, "share": share, "top1": mean_interval([100 * row.top1 for row in found.values()])}
        facts["latency"] = mean_interval([row.latency for row in found.values()])[0]
        for length in SHARES if share is None and budget is not None else (share,):
            ours = groups.get(("bonsai", budget, length), {})
            ahead = [100 * (ours[seed].top1 - row.top1) for seed, row in found.items() if seed in ours]
            if ahead and way != "bonsai":
                facts[f"bonsai_ahead_at_{length:g}"] = mean_interval(ahead)
        summary.append(facts)
        print(f"{way:14} budget {budget} share {share}  {shown(facts['top1'])}  latency {facts['latency']:.3f}", flush=True)
    settings = {"epochs": options.epochs, "train": options.train, "width": options.width}
    text = json.dumps({"summary": summary, **settings, **host_facts(), "rows": [row.model_dump(mode="json") for row in rows]}, indent=1)
    part = out.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(out)


if __name__ == "__main__":
    main()
