"""Prunes a network inside a training loop: Bonsai's own, or anybody's.

Stage `train_dense` observes with a pruner and stage `prune` cuts with it. `SteppingPruner` (`stages/pruning/stepping.py`) decides by itself when to cut and
how far.
"""

from collections.abc import Collection, Mapping, Sequence
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
from bonsai.stages.pruning.coupling.editing import groups_left
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import OF_WEIGHTS, Criterion
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.scores import BATCH_CRITERIA, Scores, weight_scores
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.pruning.statistics import BatchStatistics
from bonsai.stages.pruning.surgery import check_cut, cut

STATISTICS = "statistics"


class Plan(Record):
    """One cut.

    Attributes:
        kept: Channels to keep by group, ascending. A group without an entry stays whole.
        trigger: The policy's reason to cut now. None if the caller decided.
    """

    kept: dict[str, tuple[int, ...]]
    trigger: Trigger | None = None


class _Structure(Record):
    """What was cut."""

    edit: KeepChannels
    kept: dict[str, tuple[int, ...]]
    difference: float


class Pruner:
    """Collects statistics of a network in training. Cuts the network, its optimizer and its averages in place.

    Args:
        network: Network that the caller trains, on any device. Pass the bare module, not a wrapped or compiled one. Attention of torch loses channels
            only if `replace_attention(network)` was called before the optimizer was made.
        optimizer: Optimizer of the network.
        image_shape: (channels, height, width) of one image.
        criterion: Criterion that ranks channels.
        groups: Groups of the network, if they are known already.
        averages: Moving averages of the network, such as an `AveragedModel`. They are cut with it.
        window: Batches that criteria of batches are averaged over.
        criteria: Criteria of batches that statistics are kept of.

    Attributes:
        masks: Masks of channels that are zero for now. They are set before the network is trained on; a cut removes them.
        edit: All cuts as one.
        kept: Channels of the dense network that are left, by group.
        difference: Largest difference between masking and removing, relative to how much outputs vary between images, over all cuts.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        image_shape: tuple[int, ...],
        *,
        criterion: Criterion = "bn_gradient",
        groups: tuple[Group, ...] | None = None,
        averages: Sequence[nn.Module] = (),
        window: int = 40,
        criteria: Collection[str] = BATCH_CRITERIA,
    ) -> None:
        self.masks: Masks | None = None
        self.edit, self.difference = KeepChannels(), 0.0
        self._network, self._optimizer, self._image_shape, self._window = network, optimizer, image_shape, window
        self._averages = tuple(average.module if isinstance(average, AveragedModel) else average for average in averages)
        self._criterion, self._criteria, self._groups = criterion, criteria, groups
        self._statistics: BatchStatistics | None = None
        self._observed: dict[str, torch.Tensor] = {}
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
            self._statistics = BatchStatistics(self._network, self.groups, self._window, self.masks, self._criteria)
            if self._observed:
                self._statistics.restore(self._observed)
        return self._statistics

    def observe(self) -> None:
        """Add the gradients of a batch. Call it after backward (and after unscaling gradients), before the optimizer's step."""
        self.statistics.observe()

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
        self.edit, self.difference = self.edit.then(edit), max(self.difference, difference)
        self.kept = {name: tuple(self.kept[name][i] for i in plan.kept[name]) if name in plan.kept else left for name, left in self.kept.items()}
        self._observed = observed

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
        return {**_Structure(edit=self.edit, kept=self.kept, difference=self.difference).model_dump(mode="json"), STATISTICS: self.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from an earlier state: the network is cut as it was then. Load weights, moments and averages after this.

        Args:
            state: Result of `state_dict` for the same network.

        Raises:
            ConfigError: The state belongs to another network, or this network has other cuts.
        """
        saved = _Structure.model_validate({name: state[name] for name in _Structure.model_fields})
        if self.edit not in (KeepChannels(), saved.edit):
            raise ConfigError(
                describe("the network has other cuts than this state", given="a cut network", allowed="a dense one", fix="build the network anew")
            )
        if self.edit != saved.edit:
            self._carry(saved.edit, saved.kept)
        elif self.kept != saved.kept:
            raise ConfigError(
                describe("the state belongs to another network", given=_widths(saved.kept), allowed=_widths(self.kept), fix="load it for the same network")
            )
        self.edit, self.kept, self.difference = saved.edit, saved.kept, saved.difference
        self.restore(state[STATISTICS])

    def adopt(self, network: nn.Module, optimizer: Optimizer, averages: Sequence[nn.Module] = ()) -> None:
        """Go on with another network of the same structure, its optimizer and its averages: after a kill, with those that a trainer has rebuilt.

        Raises:
            ConfigError: It has another structure.
        """
        before, after = ({name: tuple(value.shape) for name, value in each.state_dict().items()} for each in (self._network, network))
        if before != after:
            differing = ", ".join(sorted({name for name, _ in before.items() ^ after.items()})[:5])
            raise ConfigError(
                describe("the network has another structure", given=differing, allowed="what the pruner has cut", fix="cut it by the pruner's `edit` first")
            )
        observed = self.state()
        self._network, self._optimizer = network, optimizer
        self._averages = tuple(average.module if isinstance(average, AveragedModel) else average for average in averages)
        self.restore(observed)

    def _carry(self, edit: KeepChannels, kept: Kept) -> None:
        groups = groups_left(self.groups, kept)
        keep_in_training(self._network, self._optimizer, self._averages, edit)
        self._groups, self._statistics, self.masks = groups, None, None

    def _copy(self) -> nn.Module:
        return copy_network(self._network).cpu()


def _widths(kept: Kept) -> str:
    return ", ".join(f"{name} {len(channels)}" for name, channels in kept.items())
