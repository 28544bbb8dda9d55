"""What the benchmarks of accuracy share: one device to fit, a trunk per seed, branches that differ in one thing.

    python benchmarks/arena.py        # measures the device's latency model anew: results/arena-device.json, about a minute

A branch is trained by the stages that a run of Bonsai goes through (`train_dense`, `prune`, `recover`), and scored on the test
split by torch in FP32. Its widths are chosen within a share of the dense network's latency, by the fitted latency model alone, so
that all methods face the same device whatever machine they train on.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import torch
from bench import BATCHNORM_BATCHES, first_settled
from scipy.stats import t as student

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import prepare_target
from bonsai.pipeline.run.trunk import trunk_inputs
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_scores
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.pruning.criteria import Criterion, Normalisation
from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.pruning.groups import Group, Kept, WidthPlan
from bonsai.stages.pruning.limits import least_channels
from bonsai.stages.pruning.policy import FinetuneConfig, RecoverConfig
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import normalise
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.selection.subnetwork import Ranking
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.recover import recover
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.config import DistillConfig
from bonsai.stages.training.evaluation import evaluate

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DEVICE = RESULTS / "arena-device.json"


class Setting(Record):
    """One branch, or with budget 1 the dense network.

    Attributes:
        budget: Share of the dense network's latency.
        epoch: When the branch leaves the trunk, or ``epi``.
        finetune: Epochs of a fine-tuning of its own, for a branch that leaves at the trunk's end; 0 for all others.
    """

    seed: int
    budget: float
    criterion: Criterion = "magnitude_l2"
    normalisation: Normalisation = "none"
    epoch: float | Literal["epi"] = "epi"
    finetune: int = 0
    schedule: ScheduleConfig = ScheduleConfig()
    regulariser: RegulariserConfig = RegulariserConfig()
    distill: DistillConfig | None = None


class Outcome(Record):
    """What became of a setting.

    Attributes:
        epoch: When the branch left the trunk.
        settled: Whether EPI had fired; None where it was not asked.
        predicted: Latency over the dense network's, by the table.
        training_macs: Multiply-accumulates of all forward passes of the training over those of the dense cycle.
    """

    setting: Setting
    epoch: float
    settled: bool | None
    widths: dict[str, int]
    predicted: float
    macs: int
    test_top1: float
    validation_top1: float
    after_cut_top1: float | None
    training_macs: float
    seconds: float


class Device(Record):
    """The latency model that all networks of the arena fit."""

    dense_ms: float
    model: Reselection

    def within(self, share: float, normalisation: Normalisation) -> Reselection:
        """Return the selection within a share of the dense latency."""
        return self.model.model_copy(update={"limit_ms": share * self.dense_ms, "normalisation": normalisation})


def arena_recipe(seed: int, device: str, overrides: dict[str, Any]) -> Recipe:
    """Return the recipe of one seed: initial weights and data order; the images stay the same."""
    return load(str(HERE / "arena.yaml"), str(HERE / "arena-cpu.yaml"), {"model.seed": seed, "training.seed": seed, "training.device": device, **overrides})[0]


class Trunk:
    """The dense training of one seed, segment by segment, shared through the store."""

    def __init__(self, setting: Setting, device: str, overrides: dict[str, Any], store: Store) -> None:
        self.recipe = arena_recipe(setting.seed, device, {**overrides, "prune.regulariser": setting.regulariser.model_dump()})
        self.store = store
        self.dataset: Dataset = store.run(prepare, data=self.recipe.data, content=source_digest(self.recipe.data))
        network = inspect_network(self.recipe, self.dataset.image_shape, len(self.dataset.classes))
        self.groups: tuple[Group, ...] = network.groups
        self.dense_widths = network.dense_widths
        self.per_epoch = self.dataset.sizes["train"] // self.recipe.training.batch_size
        self._inputs = trunk_inputs(self.recipe, self.dataset, network.groups)

    def segment(self, epoch: float) -> Checkpoint:
        """Return the trunk as it is after so many epochs, at a check."""
        cycle = self.recipe.training.epochs
        return self._at(round(epoch / cycle / EpiConfig().every))

    def _at(self, check: int) -> Checkpoint:
        """Return the trunk at a check, from 1; 0 is before any training."""
        total, every = self.recipe.training.epochs * self.per_epoch, EpiConfig().every
        found: Checkpoint = self.store.run(initialise, dataset=self.dataset, model=self.recipe.model, weights=None)
        for earlier in range(min(check, 1), check + 1):
            found = self.store.run(train_dense, **self._inputs, previous=found, stop=round(total * every * earlier))
        return found

    def epi(self, device: Reselection, criterion: Criterion) -> tuple[float, bool]:
        """Return the epoch at which EPI fires, and whether it had settled there."""
        config = EpiConfig()
        least = {group.name: least_channels(group, self.recipe.prune.floor) for group in self.groups}
        ranking = Ranking(device.latency, device.options, device.limit_ms, least)

        def keep(check: int) -> Kept:
            return ranking.keep(normalise(load_scores(self._at(check), criterion), self.groups, device.normalisation))

        check, fired, _ = first_settled(range(1, config.checks + 1), keep, config, criterion)
        return check * self.recipe.training.epochs * config.every, fired


def run_setting(setting: Setting, device: str, overrides: dict[str, Any], folder: Path) -> Outcome:
    """Train one branch and score it."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    trunk = Trunk(setting, device, overrides, Store(folder))
    training, cycle = trunk.recipe.training, trunk.recipe.training.epochs
    model = Device.model_validate_json(DEVICE.read_text())
    selection = model.within(setting.budget, setting.normalisation)
    dense_macs = count_macs(load_network(trunk.segment(1)), trunk.dataset.image_shape)
    fired, epoch, widths, final, after_cut = None, setting.epoch, trunk.dense_widths, None, None
    if setting.budget == 1:
        epoch, final = float(cycle), trunk.segment(cycle)
    else:
        if epoch == "epi":
            epoch, fired = trunk.epi(selection, setting.criterion)
        segment = trunk.segment(epoch)
        finetune = FinetuneConfig(epochs=setting.finetune, lr=0.02) if setting.finetune else None
        cut = trunk.store.run(
            prune,
            dense=segment,
            plan=WidthPlan(widths=selection.choose(load_scores(segment, setting.criterion), trunk.groups)),
            reselection=selection if setting.schedule.steps > 1 else None,
            dataset=trunk.dataset,
            training=training,
            criterion=setting.criterion,
            schedule=setting.schedule,
            finetune=finetune,
            batchnorm_batches=BATCHNORM_BATCHES,
        )
        teacher = trunk.segment(cycle) if setting.distill else None
        final = trunk.store.run(
            recover, pruned=cut, dataset=trunk.dataset, training=training, length=RecoverConfig(), finetune=finetune, distill=setting.distill, teacher=teacher
        )
        widths, after_cut = {name: len(channels) for name, channels in cut.kept.items()}, cut.metrics["validation_top1_after_cut"]
    network = load_network(final).to(device)
    images, labels = (tensor.to(device) for tensor in load_split(trunk.dataset, "test"))
    macs = count_macs(network.cpu(), trunk.dataset.image_shape)
    work = epoch * dense_macs + ((final.step / trunk.per_epoch) - epoch) * macs
    return Outcome(
        setting=setting,
        epoch=epoch,
        settled=fired,
        widths=widths,
        predicted=selection.latency(widths) / model.dense_ms,
        macs=macs,
        test_top1=evaluate(network.to(device), images, labels, CLASSIFICATION),
        validation_top1=final.history[-1].validation,
        after_cut_top1=after_cut,
        training_macs=work / (cycle * dense_macs),
        seconds=time.perf_counter() - started,
    )


def run_all(settings: Sequence[Setting], file: Path, options: argparse.Namespace) -> list[Outcome]:
    """Run what `file` does not hold yet, and write every outcome there as soon as it is known."""
    overrides = {"training.epochs": options.epochs} if options.epochs else {}
    known = {outcome.setting: outcome for outcome in load_outcomes(file)} if not options.fresh else {}
    missing = [setting for setting in dict.fromkeys(settings) if setting not in known and not options.summarise]
    if missing:
        folder = Path(options.store or tempfile.mkdtemp(prefix="arena-"))
        context = multiprocessing.get_context("spawn")
        started = time.monotonic()
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            for batch in ([s for s in missing if s.budget == 1], [s for s in missing if s.budget < 1]):  # the dense networks grow the trunks
                futures = [pool.submit(run_setting, setting, options.device, overrides, folder) for setting in batch]
                for done, future in enumerate(as_completed(futures), 1):
                    outcome = future.result()
                    if outcome.setting in settings:
                        known[outcome.setting] = outcome
                    save_outcomes(file, known.values(), options, overrides)
                    print(f"{time.monotonic() - started:6.0f} s  {done}/{len(batch)}  {describe(outcome)}", flush=True)
    return [known[setting] for setting in dict.fromkeys(settings) if setting in known]


def load_outcomes(file: Path) -> list[Outcome]:
    """Return the outcomes that an earlier run left."""
    return [Outcome.model_validate(row) for row in json.loads(file.read_text())["outcomes"]] if file.exists() else []


def save_outcomes(file: Path, outcomes: Iterable[Outcome], options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Write the outcomes with the machine and the versions."""
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else None
    facts = {"trained_on": gpu or "cpu", "overrides": overrides, **host_facts()}
    text = json.dumps({**facts, "outcomes": [outcome.model_dump(mode="json", exclude_defaults=True) for outcome in outcomes]}, indent=1)
    part = file.with_suffix(".part")
    part.write_text(text + "\n")
    os.replace(part, file)


def write_summary(file: Path, summary: object) -> None:
    """Lay a summary in front of the outcomes."""
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({"summary": summary, **{key: value for key, value in facts.items() if key != "summary"}}, indent=1) + "\n")


def shown(interval: tuple[float, float | None]) -> str:
    """Return a mean with its interval."""
    mean, spread = interval
    return f"{mean:.2f}" + (f" ± {spread:.2f}" if spread is not None else "")


def describe(outcome: Outcome) -> str:
    """Return one line about an outcome."""
    s = outcome.setting
    how = f"{s.criterion}/{s.normalisation} {s.schedule.name}{'/soft' if s.schedule.soft else ''} {s.regulariser.name}{' distilled' if s.distill else ''}"
    return f"seed {s.seed} budget {s.budget:.0%} epoch {outcome.epoch:g}{f'+{s.finetune}' if s.finetune else ''} {how}: top-1 {outcome.test_top1:.4f}"


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the half width of its 95 % interval by Student's t; None of fewer than two values."""
    spread = statistics.stdev(values) / len(values) ** 0.5 * float(student.ppf(0.975, len(values) - 1)) if len(values) > 1 else None
    return statistics.mean(values), spread


def by_setting(outcomes: Iterable[Outcome], key: Callable[[Outcome], Any]) -> dict[Any, dict[int, Outcome]]:
    """Return outcomes by key and seed."""
    found: dict[Any, dict[int, Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(key(outcome), {})[outcome.setting.seed] = outcome
    return found


def parse(what: str) -> argparse.Namespace:
    """Read the options that all benchmarks of the arena have."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to train")
    parser.add_argument("--workers", type=int, default=2, help="branches at a time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None, help="a shorter cycle, for trials")
    parser.add_argument("--store", default=None, help="keep the trunks here; a temporary folder otherwise")
    parser.add_argument("--fresh", action="store_true", help="run again what the results hold already")
    parser.add_argument("--summarise", action="store_true", help="run nothing: summarise and draw what the results hold")
    return parser.parse_args()


def measure_device() -> None:
    """Measure the latency model on this machine."""
    recipe, (profile,) = load(str(HERE / "arena.yaml"), str(HERE / "arena-cpu.yaml"), {})
    with tempfile.TemporaryDirectory() as folder:
        target = prepare_target(recipe, profile, inspect_network(recipe, (1, 32, 32), 62), Store(Path(folder)).run)
    device = Device(dense_ms=target.latency({g.name: g.width for g in target.groups}), model=target.chooser.reselection(target.limit_ms))
    DEVICE.write_text(device.model_dump_json(indent=1) + "\n")
    print(f"dense {device.dense_ms:.3f} ms, narrowest {target.floor_ms / device.dense_ms:.1%} of it")


if __name__ == "__main__":
    measure_device()
