"""Bonsai in a plain PyTorch loop: is the budget met, what does it cost, and how accurate is it beside Torch-Pruning in the same script?

    python benchmarks/own_loop.py --data FASHION_MNIST [--part budget cost accuracy]      # results/own_loop.json; goes on where it was stopped

ResNet-8 of width 32 on Fashion-MNIST (`fashion.py`), SGD in one cycle; FP32 engines of ONNX Runtime on this machine.

| part | what is measured |
|---|---|
| `budget` | ten seeds, budgets from 0.35 to 0.65 of the dense latency, as milliseconds: the latency of the deployed engine, of the budget |
| `cost` | a step's `observe()` and `step()` beside the rest of the step; making a pruner, for the first time and again; the cut itself |
| `accuracy` | three seeds, 0.35 of the latency, equal epochs: `bonsai.Pruner`, and Torch-Pruning's global ranking by magnitudes, same step and half-way |

Torch-Pruning gets the smallest ratio with which an untrained network of its widths meets the same limit, timed alike, and an optimizer for the network
that it leaves. The learning rate goes on along the same cycle.
"""

import argparse
import copy
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from arena import RESULTS, mean_interval, shown
from fashion import DEBIAN, load
from torch import nn
from torch.nn.functional import cross_entropy

import bonsai
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.registry import TRAIN
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.pruning.pruner import Plan
from bonsai.stages.store.manifest import host_facts

FILE = RESULTS / "own_loop.json"
SHAPE, CLASSES, WIDTH = (1, 28, 28), 10, 32
BUDGETS = (0.35, 0.45, 0.55, 0.65)
SHARE = 0.35
BATCH, LR = 64, 0.05
MULTIPLE = 8
"""Channels that Torch-Pruning's widths are multiples of, as Bonsai's on this machine."""
RUNS, SEEDS = 10, 3
SETTINGS: dict[str, Any] = {"target": "local-cpu", "precision": "fp32"}


class Used(Record):
    """One deployed engine: its latency with the ends of its interval, as fractions of the budget."""

    seed: int
    budget: float
    used: float
    low: float | None
    high: float | None
    verdict: str


class Cost(Record):
    """What one pruner took.

    Attributes:
        first_seconds: Making it, with the device's table to measure.
        again_seconds: Making it once more.
        overhead: `observe()` and `step()` before the cut, as a fraction of the rest of a step: the median over the steps, and of the sums with all checks.
        cut_seconds: Cutting network and optimizer to chosen widths, with the proof that the cut network computes the same.
    """

    seed: int
    first_seconds: float
    again_seconds: float
    overhead: tuple[float, float]
    cut_seconds: float


class Score(Record):
    """One network after the whole training."""

    seed: int
    way: str
    step: int
    latency: float
    top1: float


class Data:
    """Images in memory, as most small loops have them."""

    def __init__(self, root: Path, train: int, test: int) -> None:
        found = load(str(root), train, test)
        parts = found.parts
        assert parts is not None
        images, first = found.images.float() / 255, parts == TRAIN
        self.images, self.labels = images[first], found.labels[first]
        self.test_images, self.test_labels = images[~first], found.labels[~first].numpy()
        self.per_epoch = len(self.images) // BATCH

    def batches(self, seed: int, epochs: int) -> list[torch.Tensor]:
        """Return the numbers of the images of every step."""
        order = torch.Generator().manual_seed(seed)
        return [part for _ in range(epochs) for part in torch.randperm(len(self.images), generator=order)[: self.per_epoch * BATCH].view(-1, BATCH)]

    def hits(self, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return for every test image whether a network is right."""
        found = np.concatenate([run(part.numpy()).argmax(1) for part in self.test_images.view(-1, 250, *SHAPE)])
        hits: np.ndarray = found == self.test_labels
        return hits

    def top1(self, network: nn.Module) -> float:
        """Return the share of the test images that a torch network gets right."""
        network.eval()
        with torch.no_grad():
            return float(self.hits(lambda part: network(torch.from_numpy(part)).numpy()).mean())


class Loop:
    """A plain training loop; `pruned` is what the three lines of Bonsai make of it."""

    def __init__(self, data: Data, seed: int, epochs: int) -> None:
        self.data, self.seed = data, seed
        self.batches = data.batches(seed, epochs)
        self.network = dense(seed)
        self.optimizer = sgd(self.network)

    def backward(self, numbers: torch.Tensor) -> None:
        """Add the gradients of a batch."""
        self.network.train()
        loss = cross_entropy(self.network(self.data.images[numbers]), self.data.labels[numbers])
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def update(self, step: int) -> None:
        """Take the optimizer's step, at the rate of one cycle: up during its first tenth, and down along a cosine."""
        done = step / len(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = LR * min(10 * done + 0.01, (1 + math.cos(math.pi * done)) / 2)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def pruned(self, **settings: Any) -> bonsai.Pruner:
        """Train to the end with a pruner, and return it."""
        pruner = bonsai.Pruner(self.network, self.optimizer, torch.zeros(2, *SHAPE), steps=len(self.batches), **SETTINGS, **settings)
        for step, numbers in enumerate(self.batches):
            self.backward(numbers)
            pruner.observe()
            self.update(step)
            pruner.step()
        return pruner

    def train(self, smaller: Callable[[nn.Module], nn.Module] = lambda network: network, at: int = 0) -> None:
        """Train to the end, with a smaller network and an optimizer for it from a step on."""
        for step, numbers in enumerate(self.batches):
            if step == at:
                self.network = smaller(self.network)
                self.optimizer = sgd(self.network)
            self.backward(numbers)
            self.update(step)


def sgd(network: nn.Module) -> torch.optim.SGD:
    """Return the optimizer of every loop."""
    return torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)


def dense(seed: int) -> nn.Module:
    """Return the dense network with random weights."""
    return build_network(ModelConfig(name="resnet8", options={"width": WIDTH}, seed=seed), SHAPE, CLASSES)


def use_of_budget(data: Data, seed: int, epochs: int, store: Path) -> Used:
    """Prune to a budget in milliseconds, deploy, and compare the engine's latency with the budget."""
    share, loop = BUDGETS[seed % len(BUDGETS)], Loop(data, seed, epochs)
    spare = Loop(data, seed, epochs)
    limit = share * bonsai.Pruner(spare.network, spare.optimizer, torch.zeros(2, *SHAPE), latency=0.5, steps=1000, store=store, **SETTINGS).target.dense_ms
    loop.pruned(latency_ms=limit, store=store)
    loop.network.eval()
    options: dict[str, Any] = {"evaluate": data.hits, "samples": [data.test_images[:64]], "store": store, "name": f"seed-{seed}"}
    package = bonsai.deploy(loop.network, torch.zeros(2, *SHAPE), latency_ms=limit, **options, **SETTINGS)
    gate = package.gates[0]
    low, high = (None if end is None else end / limit for end in (gate.low, gate.high))
    return Used(seed=seed, budget=share, used=gate.found / limit, low=low, high=high, verdict=gate.verdict)


def cost(data: Data, seed: int, epochs: int, folder: Path) -> Cost:
    """Time every call of a pruner."""
    settings: dict[str, Any] = {"latency": SHARE, "steps": len(data.batches(seed, epochs)), "store": folder, **SETTINGS}
    made, pruner = [], None
    for _ in range(2):
        loop, started = Loop(data, seed, epochs), time.perf_counter()
        pruner = bonsai.Pruner(loop.network, loop.optimizer, torch.zeros(2, *SHAPE), **settings)
        made.append(time.perf_counter() - started)
    assert pruner is not None
    parts: list[tuple[float, float]] = []
    for step, numbers in enumerate(loop.batches):
        began = time.perf_counter()
        loop.backward(numbers)
        observing = time.perf_counter()
        pruner.observe()
        observed = time.perf_counter()
        loop.update(step)
        ended = time.perf_counter()
        cut = pruner.step()
        stepped = time.perf_counter()
        if cut:
            break
        parts.append((observing - began + ended - observed, observed - observing + stepped - ended))
    ratios = statistics.median(extra / rest for rest, extra in parts), sum(extra for _, extra in parts) / sum(rest for rest, _ in parts)
    again = Loop(data, seed, epochs)
    second = bonsai.Pruner(again.network, again.optimizer, torch.zeros(2, *SHAPE), **settings)
    again.backward(again.batches[0])
    again.update(0)
    plan = Plan(kept=pruner.kept)
    started = time.perf_counter()
    second.apply(plan)
    return Cost(seed=seed, first_seconds=made[0], again_seconds=made[1], overhead=ratios, cut_seconds=time.perf_counter() - started)


def scores(data: Data, seed: int, epochs: int, store: Path) -> list[Score]:
    """Train a seed each way, to the same limit."""
    loop = Loop(data, seed, epochs)
    pruner = loop.pruned(latency=SHARE, store=store)
    target, found = pruner.target, []

    def row(way: str, step: int, loop: Loop, widths: Widths) -> None:
        latency = target.time_untrained(widths).ms / target.dense_ms
        found.append(Score(seed=seed, way=way, step=step, latency=latency, top1=data.top1(loop.network)))
        print(found[-1], flush=True)

    trigger = pruner.trigger
    assert trigger is not None
    at = round(trigger.epoch)
    row("bonsai", at, loop, {name: len(channels) for name, channels in pruner.kept.items()})
    for way, step in (("torch-pruning, same step", at), ("torch-pruning, half", len(loop.batches) // 2)):
        other, widths = Loop(data, seed, epochs), dict[str, int]()

        def smaller(network: nn.Module) -> nn.Module:
            return _cut_by_torch_pruning(network, target, widths)  # noqa: B023  # called in this round

        other.train(smaller, step)
        row(way, step, other, widths)
    plain = Loop(data, seed, epochs)
    plain.train()
    row("dense", 0, plain, dict(target.network.dense_widths))
    return found


def _cut_by_torch_pruning(network: nn.Module, target: Any, widths: Widths) -> nn.Module:
    """Return a copy that Torch-Pruning cut by the smallest ratio that meets the limit; its widths are written down."""
    for percent in range(2, 96):
        smaller = copy.deepcopy(network)
        head = [module for module in smaller.modules() if isinstance(module, nn.Linear)]
        form = {"global_pruning": True, "pruning_ratio": percent / 100, "round_to": MULTIPLE, "ignored_layers": head}
        tp.pruner.BasePruner(smaller, torch.zeros(2, *SHAPE), importance=tp.importance.GroupMagnitudeImportance(p=2), **form).step()
        now = {name: int(smaller.get_submodule(name).out_channels) for name in target.network.dense_widths}  # type: ignore[arg-type]
        if now == widths or target.latency(now) > 1.1 * target.limit_ms:
            continue
        widths.update(now)
        if target.time_untrained(now).ms <= target.limit_ms:
            for parameter in smaller.parameters():
                parameter.requires_grad_(True)
            return smaller
    raise SystemExit("Torch-Pruning finds no network within the limit")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description="Bonsai in a plain PyTorch loop")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--part", nargs="+", choices=("budget", "cost", "accuracy"), default=("cost", "budget", "accuracy"))
    parser.add_argument("--train", type=int, default=6400, help="training images")
    parser.add_argument("--epochs", type=int, default=10, help="of the part `accuracy`; the others take two")
    parser.add_argument("--store", type=Path, default=None, help="folder of what is measured; a temporary one by default")
    options = parser.parse_args()
    torch.set_num_threads(2)
    data, store = Data(options.data, options.train, 10_000), options.store or Path(tempfile.mkdtemp(prefix="own-loop-"))
    rows: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text())["rows"] if FILE.exists() else {}
    for part, count in (("cost", SEEDS), ("budget", RUNS), ("accuracy", SEEDS)):
        for seed in range(count if part in options.part else 0):
            there = rows.setdefault(part, [])
            if any(row["seed"] == seed for row in there):
                continue
            if part == "cost":
                there.append(cost(data, seed, 2, store / f"cost-{seed}").model_dump(mode="json"))
            elif part == "budget":
                there.append(use_of_budget(data, seed, 2, store / "store").model_dump(mode="json"))
            else:
                there += [row.model_dump(mode="json") for row in scores(data, seed, options.epochs, store / "store")]
            print(there[-1], flush=True)
            save(rows, options)


def save(rows: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Write the rows with a summary in front."""
    summary: dict[str, Any] = {}
    if used := sorted(row["used"] for row in rows.get("budget", [])):
        summary["used_budget"] = {"runs": len(used), "median": statistics.median(used), "lowest": used[0], "highest": used[-1]}
        summary["used_budget"]["verdicts"] = {verdict: sum(row["verdict"] == verdict for row in rows["budget"]) for verdict in ("met", "undecided", "missed")}
    if costs := rows.get("cost"):
        summary["cost"] = {key: statistics.median(row[key] for row in costs) for key in ("first_seconds", "again_seconds", "cut_seconds")}
        summary["cost"]["overhead_median_step"] = statistics.median(row["overhead"][0] for row in costs)
        summary["cost"]["overhead_with_checks"] = statistics.median(row["overhead"][1] for row in costs)
    ways = dict.fromkeys(row["way"] for row in rows.get("accuracy", []))
    ours = {row["seed"]: row["top1"] for row in rows.get("accuracy", []) if row["way"] == "bonsai"}
    for way in ways:
        found = [row for row in rows["accuracy"] if row["way"] == way]
        facts: dict[str, Any] = {"top1": mean_interval([100 * row["top1"] for row in found]), "latency": mean_interval([row["latency"] for row in found])[0]}
        facts["bonsai_ahead"] = mean_interval([100 * (ours[row["seed"]] - row["top1"]) for row in found if row["seed"] in ours])
        summary[way] = facts
        print(f"{way:26} {shown(facts['top1'])}  latency {facts['latency']:.3f}  Bonsai ahead by {shown(facts['bonsai_ahead'])}", flush=True)
    text = json.dumps({"summary": summary, "train": options.train, "epochs": options.epochs, **host_facts(), "rows": rows}, indent=1)
    FILE.write_text(text + "\n")


if __name__ == "__main__":
    main()
