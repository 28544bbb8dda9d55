"""Prunes a network inside a training loop: Bonsai's own, or anybody's.

    pruner = Pruner(network, optimizer, image_shape, chooser=chooser, steps=total_steps)
    for images, labels in loader:
        loss(network(images), labels).backward()
        pruner.observe()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()

Stage `train_dense` observes with it and stage `prune` cuts with it. In both loops, `Indicator` decides when to cut and `Chooser` how wide the network stays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.pruning.carrying import keep_in_training
from bonsai.stages.pruning.config import PruneConfig, require_own_loop
from bonsai.stages.pruning.coupling.editing import groups_left
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import OF_WEIGHTS, Criterion
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.indicator import Indicator
from bonsai.stages.pruning.policy import check_steps
from bonsai.stages.pruning.scores import Scores, best_channels, weight_scores
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.pruning.statistics import BatchStatistics
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.loop import Measured
from bonsai.stages.training.progress import say

STATISTICS = "statistics"


class Plan(Record):
    """One cut.

    Attributes:
        kept: Channels to keep by group, ascending. A group without an entry stays whole.
        trigger: The policy's reason to cut now. None if the caller decided.
    """

    kept: dict[str, tuple[int, ...]]
    trigger: Trigger | None = None


class _Progress(Record):
    """State of a pruner, without its statistics."""

    edit: KeepChannels
    kept: dict[str, tuple[int, ...]]
    difference: float
    steps: int = 0
    seen: tuple[dict[str, tuple[int, ...]], ...] = ()
    epochs: tuple[float, ...] = ()
    trigger: Trigger | None = None


class Pruner:
    """Collects statistics of a network in training. Cuts the network, its optimizer and its averages in place.

    Args:
        network: Network that the caller trains, on any device. Pass the bare module, not a wrapped or compiled one. Attention of torch loses channels
            only if `replace_attention(network)` was called before the optimizer was made.
        optimizer: Optimizer of the network.
        image_shape: (channels, height, width) of one image.
        chooser: Chooses widths within a budget. Without one, nothing is checked and only `apply` cuts.
        criterion: Criterion that ranks channels, if there is no chooser; a chooser's config names its own.
        groups: Groups of the network, if they are known already.
        averages: Moving averages of the network, such as an `AveragedModel`. They are cut with it.
        measure: Times an untrained network of given widths; None trusts the chooser's prediction.
        steps: Optimizer steps of the whole training. The config places the checks at fractions of it.
        steps_per_epoch: Optimizer steps of an epoch, for the policy ``epoch``. With 1, an epoch is a step.
        window: Batches that criteria of batches are averaged over.

    Attributes:
        masks: Masks of channels that are zero for now. `Removal` sets them before it trains; a cut removes them.
        edit: All cuts as one.
        kept: Channels of the dense network that are left, by group.
        difference: Largest difference between masking and removing, relative to how much outputs vary between images, over all cuts.
        trigger: The policy's reason for the cut. None before a cut, and if the plan had none.

    Raises:
        ConfigError: The chooser's config needs Bonsai's own loop, or `steps` are too few for its policy.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        image_shape: tuple[int, ...],
        *,
        chooser: Chooser | None = None,
        criterion: Criterion = "bn_gradient",
        groups: tuple[Group, ...] | None = None,
        averages: Sequence[nn.Module] = (),
        measure: Callable[[Widths], Measured] | None = None,
        steps: int = 0,
        steps_per_epoch: int = 1,
        window: int = 40,
    ) -> None:
        config = chooser.config if chooser else PruneConfig(criterion=criterion)
        self.masks: Masks | None = None
        self.edit, self.difference = KeepChannels(), 0.0
        self.trigger: Trigger | None = None
        self._network, self._optimizer, self._image_shape, self._window = network, optimizer, image_shape, window
        self._averages = tuple(average.module if isinstance(average, AveragedModel) else average for average in averages)
        self._criterion, self._chooser, self._measure = config.criterion, chooser, measure
        self._indicator = Indicator(config.policy, config.epi, config.criterion)
        if chooser:
            require_own_loop(config)
        self._checks = check_steps(config.policy, config.epi, total=steps, per_epoch=steps_per_epoch) if chooser else []
        self._steps, self._per_epoch = 0, steps_per_epoch
        self._groups = groups
        self._statistics: BatchStatistics | None = None
        self._observed: dict[str, torch.Tensor] = {}
        self._listening: ExitStack | None = None
        self.kept: Kept = {group.name: tuple(range(group.width)) for group in self.groups}

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the network as it is now."""
        if self._groups is None:
            self._groups = find_groups(self._copy(), self._image_shape)
        return self._groups

    @property
    def statistics(self) -> BatchStatistics:
        """Statistics of the present channels, from the batches so far."""
        if self._statistics is None:
            self._statistics = BatchStatistics(self._network, self.groups, self._window, self.masks)
            if self._observed:
                self._statistics.restore(self._observed)
        return self._statistics

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record activations until the cut. Only the criterion ``activation`` needs the loop to run within this block."""
        with ExitStack() as self._listening:
            self._listening.enter_context(self.statistics.watching())
            try:
                yield
            finally:
                self._listening = None

    def observe(self) -> None:
        """Add the gradients of a batch. Call it after backward (and after unscaling gradients), before the optimizer's step."""
        if self.trigger is None:
            self.statistics.observe()

    def step(self) -> bool:
        """Count an optimizer step. At a check, ask the policy, and cut the network if it fires.

        Returns:
            Whether the network was cut. Wrap or compile it again then.

        Raises:
            ConfigError: There is no chooser, or the optimizer cannot be cut.
            BudgetError: Even the narrowest network is above the budget.
            Uncuttable: The cut network does not compute what it should. The training is left as it was.
        """
        self._require_chooser()
        self._steps += 1
        if self._finished or self._steps not in self._checks:
            return False
        self._indicator = self._look()
        if self._indicator.policy.name == "epi":
            say(f"pruner: {self._indicator.sentence}")
        plan = self._plan(self._indicator)
        if plan is None:
            return False
        self.apply(plan)
        return True

    def check(self) -> Plan | None:
        """Return what a check at this step would cut, or None if the policy does not fire. Nothing is changed."""
        return None if self._finished else self._plan(self._look())

    def apply(self, plan: Plan) -> None:
        """Cut the network, its averages and its optimizer in place. If an error is raised, all of them are left as they were.

        Args:
            plan: Names channels by their position in the present network.

        Raises:
            ValueError: A group or a channel does not exist.
            ConfigError: The optimizer or an average cannot be cut.
            Uncuttable: The cut network does not compute what it should.
        """
        dense = self._copy()
        pruned = copy_network(dense)
        edit = cut(pruned, self.groups, plan.kept)
        difference = check_cut(dense, pruned, edit, self._image_shape)
        observed = BatchStatistics.cut(self._statistics.state() if self._statistics else self._observed, plan.kept)
        self._carry(edit, plan.kept)
        self.edit, self.difference, self.trigger = self.edit.then(edit), max(self.difference, difference), plan.trigger
        self.kept = {name: tuple(self.kept[name][i] for i in plan.kept[name]) if name in plan.kept else left for name, left in self.kept.items()}
        self._observed = observed
        if plan.trigger:
            say(f"pruner: cut {plan.trigger.sentence}")

    def state(self) -> dict[str, torch.Tensor]:
        """Return the statistics alone; the trunk saves them beside the optimizer's moments."""
        return self.statistics.state()

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from statistics that `state` returned for a network of the present widths. Without any, begin new ones."""
        self._statistics, self._observed = None, dict(tensors)

    def scores(self) -> Scores:
        """Return the channels' scores by group, (width,) float32 on the CPU. A criterion of batches gives zeros before the first batch."""
        if self._criterion in OF_WEIGHTS:
            return weight_scores(self._copy(), self.groups)[self._criterion]
        return self.statistics.scores()[self._criterion]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, as plain values and CPU tensors, without weights and moments."""
        progress = _Progress(
            steps=self._steps,
            seen=self._indicator.seen,
            epochs=self._indicator.epochs,
            edit=self.edit,
            kept=self.kept,
            difference=self.difference,
            trigger=self.trigger,
        )
        return {**progress.model_dump(mode="json"), STATISTICS: self.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from an earlier state: the network is cut as it was then. Load weights, moments and averages after this.

        Args:
            state: Result of `state_dict` for the same network.

        Raises:
            ConfigError: The state belongs to another network, or this network has other cuts.
        """
        progress = _Progress.model_validate({name: value for name, value in state.items() if name != STATISTICS})
        if self.edit not in (KeepChannels(), progress.edit):
            raise ConfigError(
                describe("the network has other cuts than this state", given="a cut network", allowed="a dense one", fix="build the network anew")
            )
        if self.edit != progress.edit:
            self._carry(progress.edit, progress.kept)
        elif self.kept != progress.kept:
            raise ConfigError(
                describe("the state belongs to another network", given=_widths(progress.kept), allowed=_widths(self.kept), fix="load it for the same network")
            )
        self.edit, self.kept, self.difference, self.trigger = progress.edit, progress.kept, progress.difference, progress.trigger
        self._steps, self._indicator = progress.steps, Indicator(self._indicator.policy, self._indicator.epi, self._criterion, progress.seen, progress.epochs)
        self.restore(state[STATISTICS])

    def _carry(self, edit: KeepChannels, kept: Kept) -> None:
        groups = groups_left(self.groups, kept)
        keep_in_training(self._network, self._optimizer, self._averages, edit)
        if self._listening:
            self._listening.close()
        self._groups, self._statistics, self.masks = groups, None, None

    @property
    def _finished(self) -> bool:
        return self.trigger is not None or bool(self.edit.kept)

    def _copy(self) -> nn.Module:
        return copy_network(self._network).cpu()

    def _look(self) -> Indicator:
        if self._criterion == "activation" and self._listening is None:
            raise ConfigError(
                describe(
                    "the criterion activation has no activations to score by",
                    given="a loop outside `watching()`",
                    allowed="a loop inside it",
                    fix="put `with pruner.watching():` around the loop, or choose another criterion",
                )
            )
        return self._indicator.after(self._require_chooser().keep(self.scores()), self._steps / self._per_epoch)

    def _plan(self, indicator: Indicator) -> Plan | None:
        trigger = indicator.trigger(latest=self._steps >= self._checks[-1])
        if trigger is None:
            return None
        scores = self.scores()
        return Plan(kept=best_channels(scores, self._require_chooser().fit(scores, self._measure).widths), trigger=trigger)

    def _require_chooser(self) -> Chooser:
        if self._chooser is None:
            raise ConfigError(describe("a pruner without a budget cannot know when to cut", given="no chooser", allowed="a `Chooser`", fix="pass `chooser=`"))
        return self._chooser


def _widths(kept: Kept) -> str:
    return ", ".join(f"{name} {len(channels)}" for name, channels in kept.items())
