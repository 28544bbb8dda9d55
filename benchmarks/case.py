"""What the small comparisons (`plain_ways.py`, `best_moment.py`, `tight.py` and others) share: tasks, networks, the recipe, and every way to a smaller network.

**Tasks**: about 1,600 training and 2,000 test images, batches of 32. **Networks**: `small` is the one that `bonsai init` writes, `deeper` the same with
two blocks a stage, of which the second may leave; `resnet8` is Bonsai's.

**Latency** is FP32 on one machine at batch 8, by a latency model that Bonsai fits to timed networks (`results/devices.json`). Channels are multiples of
8; a width between two multiples costs as much as the larger one.

**Training** is counted in dense epochs: a step of a smaller network costs its share of the dense step's multiply-accumulates, and 0.2 at least, as in
`prune.recover`.

    python benchmarks/case.py --folder DIR      # measures the latency models that `results/devices.json` lacks: on a quiet machine, before the first row
"""

import argparse
import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arena import HERE, RESULTS, Device
from bench import Bench, cut_by_torch_pruning
from fashion import DEBIAN
from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.targets import prepare_target
from bonsai.pipeline.starting.networks import CLASSIFIER
from bonsai.pipeline.starting.trained import RATE, WARMUP
from bonsai.profiles.loader import load_profile
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.groups import Widths, first_channels
from bonsai.stages.pruning.policy import RecoverConfig
from bonsai.stages.pruning.recovery import LEAST_SHARE
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.store.store import Store
from bonsai.stages.training.config import DistillConfig
from bonsai.stages.training.rates import half_cosine

DEVICES = RESULTS / "devices.json"
TASKS = {
    "capitals": 'name: "capitals:load"',
    "fashion": 'name: "fashion:load", options: {root: "FOLDER", train: 2000, test: 2000}, validation: 0.2',
    "capitals, 16 pixels": 'name: "capitals:load", options: {size: 16}',
    "fashion, 14 pixels": 'name: "fashion:load", options: {root: "FOLDER", train: 2000, test: 2000, halved: true}, validation: 0.2',
}
NETWORKS = {"small": ("small:build", 48), "resnet8": ("resnet8", 40), "deeper": ("deeper:build", 64)}
"""Factory and channels of the first layer, so many that 15 % of the latency leave a choice, and 10 % in `deeper`."""
DEEPER = """import torch
from small import Block, Net


def build(in_channels: int, num_classes: int, width: int) -> torch.nn.Module:
    network = Net(in_channels, num_classes, width)
    network.blocks = torch.nn.Sequential(*(Block(*sizes) for sizes in (
        (width, width, 1), (width, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1)
    )))
    return network
"""
"""`small` with twice the blocks."""
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


class Place(NamedTuple):
    """Which case: the attributes of every row of it."""

    seed: int
    task: str
    network: str
    cycle: int


class Made(NamedTuple):
    """A trained network, with its dense epochs before the cut and its epochs after it."""

    network: nn.Module
    before: float
    after: float


class Case:
    """A task, a network, a cycle and a seed: the dense training and every way to a smaller network.

    Args:
        place: Which case.
        folder: Holds the recipe, the store and the networks (`put_networks`).
        data: Folder of Fashion-MNIST.
        tuned: Epochs of a fine-tuning that takes the cycle's place, from the weights at that cycle's end; None starts from random weights.
        changes: Of the recipe, as dotted keys.
    """

    def __init__(self, place: Place, folder: Path, data: Path, tuned: int | None = None, changes: Mapping[str, object] | None = None) -> None:
        self.model, self.width = NETWORKS[place.network]
        facts = {
            "model": self.model,
            "width": self.width,
            "seed": place.seed,
            "epochs": place.cycle,
            "lr": LR,
            "data": TASKS[place.task].replace("FOLDER", str(data)),
        }
        file = folder / "recipe.yaml"
        file.write_text(RECIPE.format(**facts))
        self.place, self.cycle = place, place.cycle
        changed = {**(changes or {}), **({"prune.blocks": True} if place.network == "deeper" else {})}
        self.bench = Bench(load_recipe(str(file), changed), Store(folder / "store"))
        if tuned:
            given, shorter = self.bench.segment(self.bench.total), {"training.epochs": tuned, "training.lr": LR * RATE, "training.warmup_epochs": WARMUP}
            self.bench = Bench(load_recipe(str(file), changed | shorter), self.bench.store, given)
        self.measured = self._device(f"{place.task}, {place.network}")
        self.shape, self.classes = self.bench.dataset.image_shape, len(self.bench.dataset.classes)

    def facts(self, made: Made) -> dict[str, float]:
        """Return a network's latency and multiply-accumulates over the dense one's, and what its training costs in dense epochs."""
        share = self.share(made.network)
        return {
            "latency": self.latency(made.network) / self.device.dense_ms,
            "macs": share,
            "before": made.before,
            "after": made.after,
            "cost": made.before + max(share, LEAST_SHARE) * made.after,
        }

    @cached_property
    def device(self) -> Device:
        """The latency model with the widths for which all residual blocks stay."""
        model = self.measured.model
        options = {group: tuple(width for width in widths if width) for group, widths in model.options.items()}
        return self.measured.model_copy(update={"model": model.model_copy(update={"options": options})})

    def dense(self, _: float) -> Made:
        """Train the dense network to the end of its cycle."""
        return Made(self.trained, self.cycle, 0)

    def bonsai(self, budget: float) -> Made:
        """Cut where EPI fires, and recover for as long as `auto` says."""
        criterion = self.bench.recipe.prune.criterion
        return self.cut_at(self.epi(budget, criterion), budget, criterion, self.bench.recipe.prune.recover)

    def initialisation(self, budget: float) -> Made:
        """Cut before any training, and train for as long as costs the same."""
        return self.cut_at(0, budget, self.bench.recipe.prune.criterion)

    def uniform(self, budget: float) -> Made:
        """Cut the trained network by one ratio."""
        return self.fine_tuned(budget, ranked=False)

    def ranked(self, budget: float) -> Made:
        """Cut the trained network by one threshold."""
        return self.fine_tuned(budget, ranked=True)

    def narrower(self, budget: float) -> Made:
        """Train the network with fewer channels everywhere, the most that the limit allows."""
        network = self._first_within((self._rounded_up(width) for width in range(self.width - 1, 0, -1)), budget)
        epochs = max(round(self.training_left(budget, network)), 1)
        training = self.bench.recipe.training.model_copy(update={"epochs": epochs})
        return Made(self.bench.train(network, training, start=0, steps=epochs * self.bench.per_epoch), 0, epochs)

    def _rounded_up(self, width: int) -> nn.Module:
        """Return the network of a width with every layer rounded up to the multiple that it costs as much as.

        Its initial weights are the first channels of those of a network that is so much wider.
        """
        channels = {
            name: min(-(-count // MULTIPLE) * MULTIPLE, self.bench.network.dense_widths[name]) for name, count in self.widths(self._build(width)).items()
        }
        network = self._build(min(width + MULTIPLE - 1, self.width))
        cut(network, find_groups(network, self.shape), first_channels(channels))
        return network

    def epi(self, budget: float, criterion: Criterion) -> int:
        """Return the step at which EPI fires."""
        limit = self.device.within(budget, "none")
        return self.bench.trigger(limit.latency, limit.options, limit.limit_ms, criterion)[0]

    def cut_at(
        self,
        step: int,
        budget: float,
        criterion: Criterion,
        length: RecoverConfig | None = None,
        *,
        widths: Callable[[Checkpoint, Reselection], Widths] | None = None,
        schedule: ScheduleConfig | None = None,
        distill: DistillConfig | None = None,
    ) -> Made:
        """Cut a segment and let the rest of the cycle take so long.

        Args:
            step: Optimizer step of the cut.
            budget: Latency over the dense network's.
            criterion: Ranks the channels.
            length: Of the recovery; None for as long as costs what `bonsai` takes.
            widths: Chooses widths from a segment's scores within the limit; None for Bonsai's choice.
            schedule: Of the removal; None for one cut.
            distill: How the dense network at the end of the cycle is imitated, which costs its training besides.
        """
        bench, segment, limit = self.bench, self.bench.segment(step), self.device.within(budget, "none")
        chosen = widths(segment, limit) if widths else limit.choose(bench.scores(segment, criterion), bench.network.groups)
        done = bench.cut(segment, chosen, criterion, schedule=schedule, reselection=limit if schedule else None)
        length = length or RecoverConfig(epochs=max(round(self.training_left(budget, load_network(done))), 1))
        found = bench.recover(done, length, distill=distill, teacher=bench.segment(bench.total) if distill else None)
        return Made(load_network(found), bench.epoch(step), (found.step - step) / bench.per_epoch)

    def fine_tuned(self, budget: float, *, ranked: bool) -> Made:
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

    def latency(self, network: nn.Module) -> float:
        """Return a network's milliseconds."""
        return self.device.model.latency(self.widths(network))

    def widths(self, network: nn.Module) -> Widths:
        """Return a network's channels by group; 0 inside of a block that left."""
        modules = dict(network.named_modules())
        return {name: int(modules[name].out_channels) if name in modules else 0 for name in self.bench.network.dense_widths}

    def _build(self, width: int) -> nn.Module:
        model = ModelConfig(name=self.model, options={"width": width}, seed=self.place.seed)
        return build_network(model, self.shape, self.classes)

    def _first_within(self, networks: Iterable[nn.Module], budget: float) -> nn.Module:
        limit = budget * self.device.dense_ms
        return next(network for network in networks if self.latency(network) <= limit)

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


def put_networks(folder: Path) -> Path:
    """Write the networks that Bonsai does not have, and return the folder's whole path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.py").write_text(CLASSIFIER)
    (folder / "deeper.py").write_text(DEEPER)
    return folder.resolve()


class Options(NamedTuple):
    """What the benchmarks of such cases are asked for on the command line.

    Attributes:
        folder: Holds networks and the store.
        data: Folder of Fashion-MNIST.
        minutes: After which no row begins; None for no end.
        summarise: Whether nothing is run.
        chosen: By name of an attribute of a row, the values that run.
    """

    folder: Path
    data: Path
    seeds: int
    minutes: float | None
    summarise: bool
    chosen: dict[str, Sequence[object]]

    def allows(self, key: NamedTuple) -> bool:
        """Return whether a row is one of those that were asked for."""
        return all(getattr(key, name) in values for name, values in self.chosen.items())


def parse(what: str, choices: Mapping[str, Sequence[Any]]) -> Options:
    """Read the command line, and go to the folder that the sets of images are imported from.

    Args:
        what: Of the benchmark.
        choices: By name of an attribute of a row, the values that there are.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--folder", type=Path, default=None, help="keep networks and the store here; a temporary folder otherwise")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None, help="begin no row after so many minutes")
    parser.add_argument("--summarise", action="store_true", help="run nothing: write the tables of the page")
    for name, values in choices.items():
        parser.add_argument(f"--{name}", nargs="+", type=type(values[0]), choices=values, default=values, help="run these alone")
    found = parser.parse_args()
    data = found.data.resolve()
    folder = Path() if found.summarise else put_networks(found.folder or Path(tempfile.mkdtemp(prefix="bonsai-")))
    torch.set_num_threads(1)
    os.chdir(HERE)
    return Options(folder, data, found.seeds, found.minutes, found.summarise, {name: getattr(found, name) for name in choices})


def main() -> None:
    """Measure the latency models that are not there yet."""
    options = parse("The latency models of the small comparisons", {"task": tuple(TASKS), "network": tuple(NETWORKS)})
    for task, network in product(options.chosen["task"], options.chosen["network"]):
        device = Case(Place(0, str(task), str(network), 1), options.folder, options.data).device
        floor = device.model.latency({group: min(widths) for group, widths in device.model.options.items()})
        print(
            f"{task}, {network}: dense {device.dense_ms:.3f} ms, narrowest {floor / device.dense_ms:.3f} of it; contention {device.model.meta.contention}",
            flush=True,
        )


if __name__ == "__main__":
    main()
