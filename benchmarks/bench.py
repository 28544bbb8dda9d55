"""What the benchmarks of when to prune share: the dense training of one recipe and seed, by Bonsai's stages, and what it takes to prune and to train on."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch_pruning as tp
from torch import nn

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.trunk import segment_stops, trunk_inputs
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_scores
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.epi import EpiConfig, over_window, settled, similarity, threshold
from bonsai.stages.pruning.groups import Kept, WidthPlan, Widths
from bonsai.stages.pruning.limits import least_channels
from bonsai.stages.pruning.policy import FinetuneConfig, RecoverConfig
from bonsai.stages.pruning.recovery import Goal
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import Scores, normalise
from bonsai.stages.selection.latency import LatencyModel
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.selection.subnetwork import Ranking
from bonsai.stages.selection.terms import Options
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.recover import recover
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.config import DistillConfig, TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.evaluation import evaluate, reestimate_batchnorm
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.rates import Rate
from bonsai.stages.training.state import TrainState, reproducible

BATCHNORM_BATCHES = 18


class Bench:
    """The dense training of a recipe, segment by segment, and what it takes to prune it.

    Args:
        recipe: The network, the data and all settings.
        store: Holds what was trained.
        given: Network that the training starts with; None for random weights.

    Attributes:
        stops: Optimizer steps at which EPI is checked.
        total: Optimizer steps of the cycle.
    """

    def __init__(self, recipe: Recipe, store: Store, given: Checkpoint | None = None) -> None:
        self.recipe, self.store, self.given = recipe, store, given
        self.dataset: Dataset = store.run(prepare, data=recipe.data, content=source_digest(recipe.data))
        self.network: Network = inspect_network(recipe, self.dataset.image_shape, len(self.dataset.classes))
        self.stops, self.total = segment_stops(recipe, self.dataset.sizes["train"])
        self.per_epoch = self.total // recipe.training.epochs

    def segment(self, stop: int) -> Checkpoint:
        """Return the trunk at a step, by way of the checks before it."""
        found: Checkpoint = self.store.run(initialise, dataset=self.dataset, model=self.recipe.model, weights=self.given)
        for step in [0] if stop == 0 else [*(step for step in self.stops if step < stop), stop]:
            found = self.store.run(train_dense, **trunk_inputs(self.recipe, self.dataset, self.network.groups), previous=found, stop=step)
        return found

    def epoch(self, stop: int) -> float:
        """Return a step in epochs."""
        return stop * self.recipe.training.epochs / self.total

    def scores(self, segment: Checkpoint, criterion: Criterion) -> Scores:
        """Return the scores that EPI and selection see."""
        return normalise(load_scores(segment, criterion), self.network.groups, self.recipe.prune.normalisation)

    def trigger(self, latency: LatencyModel, options: Options, limit_ms: float, criterion: Criterion) -> tuple[int, tuple[float | None, ...]]:
        """Return the step at which EPI fires, and its curve."""
        least = {group.name: least_channels(group, self.recipe.prune.floor) for group in self.network.groups}
        ranking = Ranking(latency, options, limit_ms, least)
        stop, _, curve = first_settled(self.stops, lambda stop: ranking.keep(self.scores(self.segment(stop), criterion)), self.recipe.prune.epi, criterion)
        return stop, curve

    def cut(
        self,
        segment: Checkpoint,
        widths: Widths,
        criterion: Criterion,
        finetune: FinetuneConfig | None = None,
        *,
        schedule: ScheduleConfig | None = None,
        reselection: Reselection | None = None,
    ) -> Checkpoint:
        """Cut a segment to widths, in one shot or by a schedule, whose later cuts choose again within the limit of `reselection`."""
        training = {"dataset": self.dataset, "training": self.recipe.training, "finetune": finetune}
        plan = {"plan": WidthPlan(widths=widths), "reselection": reselection, "criterion": criterion, "schedule": schedule or ScheduleConfig()}
        found: Checkpoint = self.store.run(prune, dense=segment, **training, **plan, batchnorm_batches=BATCHNORM_BATCHES)
        return found

    def recover(
        self,
        cut: Checkpoint,
        length: RecoverConfig,
        finetune: FinetuneConfig | None = None,
        *,
        distill: DistillConfig | None = None,
        teacher: Checkpoint | None = None,
    ) -> Checkpoint:
        """Train a cut network on, to the end of its length or fine-tuning; `auto` has no gate to reach, so it takes its least length."""
        training = {"dataset": self.dataset, "training": self.recipe.training, "finetune": finetune}
        goal = Goal(max_drop=None, min_metric=None) if length.epochs == "auto" else None
        found: Checkpoint = self.store.run(recover, pruned=cut, length=length, goal=goal, distill=distill, teacher=teacher, **training)
        return found

    def train(self, network: nn.Module, training: TrainConfig, *, start: int, steps: int, rate: Rate | None = None, settle: bool = False) -> nn.Module:
        """Train a network in place, as `train_network` does."""
        return train_network(network, self.dataset, training, start=start, steps=steps, rate=rate, settle=settle)

    def top1(self, network: nn.Module, part: Literal["validation", "test"] = "test") -> float:
        """Return the share of a part's images that a network gets right."""
        return evaluate(network, *load_split(self.dataset, part), CLASSIFICATION)


def train_network(
    network: nn.Module,
    dataset: Dataset,
    training: TrainConfig,
    *,
    start: int = 0,
    steps: int | None = None,
    rate: Rate | None = None,
    settle: bool = False,
    teacher: Teacher | None = None,
) -> nn.Module:
    """Train a network in place by the loop of Bonsai's branches.

    Args:
        network: It is laid out channels-last.
        dataset: Its images.
        training: The cycle.
        start: Step that tells which batches come first.
        steps: Optimizer steps; None for the whole cycle.
        rate: Learning rate by step; None for the cycle's.
        settle: Whether BatchNorm's statistics are taken anew first, as after a cut.
        teacher: Network that is imitated.
    """
    to_channels_last(network)
    with reproducible(training), tempfile.TemporaryDirectory() as resume:
        phase = Phase("branch", dataset, training, Path(resume))
        if settle:
            reestimate_batchnorm(network, phase.batches, start=start, count=BATCHNORM_BATCHES)
        stop = start + (training.epochs * phase.batches.per_epoch if steps is None else steps)
        phase.train(TrainState(network, training), (), start=start, stop=stop, rate=rate, teacher=teacher)
    return network


def first_settled(checks: Sequence[int], keep: Callable[[int], Kept], config: EpiConfig, criterion: Criterion) -> tuple[int, bool, tuple[float | None, ...]]:
    """Return the check at which EPI fires, whether it had settled there, and its curve up to it.

    Args:
        checks: All checks up to the latest.
        keep: Returns the sub-network of a check.
        config: Settings of the trigger.
        criterion: Ranks the channels.
    """
    seen, curve = list[Kept](), list[float | None]()
    for check in checks:
        seen.append(keep(check))
        curve = over_window(similarity, seen, config.window)
        if settled(curve, config, threshold(config, criterion)):
            return check, True, tuple(curve)
    return checks[-1], False, tuple(curve)


def cut_by_torch_pruning(trained: nn.Module, shape: tuple[int, ...], ratio: float, *, ranked: bool = False, multiple: int | None = None) -> nn.Module:
    """Return a copy of a trained network that Torch-Pruning cut by magnitudes.

    Args:
        trained: The network; its linear layers keep their outputs.
        shape: Of an image.
        ratio: Channels that leave, 0-1.
        ranked: Whether all groups are ranked together; otherwise each loses the same ratio.
        multiple: Of the channels that stay; None for any number.
    """
    network = copy.deepcopy(trained).eval()
    head = [module for module in network.modules() if isinstance(module, nn.Linear)]
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    form = {"global_pruning": ranked, "pruning_ratio": ratio, "round_to": multiple, "ignored_layers": head}
    tp.pruner.BasePruner(network, torch.zeros(2, *shape), importance=importance, **form).step()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network
