"""Cutting a network in steps while it trains: re-scored and re-selected before every cut, the training's state carried through."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.schedule import ScheduleConfig, widths_after
from bonsai.stages.pruning.scores import WEIGHT_CRITERIA, Scores, best_channels, weight_scores
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.pruning.statistics import BatchStatistics
from bonsai.stages.pruning.surgery import check_cut, cut, find_groups
from bonsai.stages.training.resume import load_progress, save_progress
from bonsai.stages.training.state import TrainState, carry_training

Choose = Callable[[Scores, tuple[Group, ...]], Widths]
"""Returns the final widths, given the scores of the channels that are left."""
Train = Callable[[TrainState, BatchStatistics, int], None]
"""Trains for `schedule.iterations` steps from the step given, showing its gradients to the statistics."""


class Removal:
    """A network on its way from its dense to its final widths.

    Args:
        state: Training state of the dense network; each cut replaces it.
        image_shape: (channels, height, width).
        criterion: Criterion by which the network is scored again before each later cut.
        schedule: Number of cuts, the training between them, and whether channels are masked before they are cut.
        window: Batches that criteria of batches are averaged over.

    Attributes:
        state: The training's present state.
        edit: All cuts as one.
        kept: Channels of the dense network that are left, by group.
        difference: Largest difference between zeroing and removing, relative to how much outputs vary between images, over all cuts.
        returned: Channels that were masked and came back.
    """

    def __init__(self, state: TrainState, image_shape: tuple[int, int, int], criterion: Criterion, schedule: ScheduleConfig, window: int) -> None:
        self.state = state
        self.kept: Kept = {group.name: tuple(range(group.width)) for group in find_groups(state.network.cpu(), image_shape)}
        self.edit, self.difference, self.returned = KeepChannels(), 0.0, 0
        state.network.to(state.config.device)
        self._image_shape, self._criterion, self._schedule, self._window = image_shape, criterion, schedule, window

    def run(
        self,
        final: Widths,
        scores: Scores,
        *,
        choose: Choose | None,
        start: int,
        train: Train,
        observed: Mapping[str, torch.Tensor] | None = None,
        resume: Path | None = None,
    ) -> int:
        """Cut down to the final widths and return the optimizer step at which the last cut is done.

        Args:
            final: Channels to keep per group, as chosen at the trigger.
            scores: Scores of the dense network.
            choose: Chooses the final widths again before each later cut; None keeps them.
            start: Optimizer step of the first cut.
            train: Trains between two cuts.
            observed: State of the trunk's `BatchStatistics`, whose averages go on; None begins new ones.
            resume: Folder for the progress after each cut, from which a killed run goes on.
        """
        schedule, done = self._schedule, 0
        dense = {name: len(channels) for name, channels in self.kept.items() if name in final}
        groups = self._groups()
        masks = Masks(self.state.network, groups) if schedule.soft else None
        if resume and (progress := load_progress(resume)):
            parts, facts = progress
            done, final, scores, start = facts["done"], facts["final"], parts["scores"], facts["start"]
            observed = parts["observed"]
            self._rebuild(parts, facts)
            groups = self._groups()
            if masks:
                masks = Masks(self.state.network, groups)
                masks.set({name: tuple(channels) for name, channels in facts["masked"].items()})
                masks.returned = facts["returned"]
        for step in range(done + 1, schedule.steps + 1):
            if choose and step > 1:
                final = choose(scores, groups)
            chosen = best_channels(scores, widths_after(step, dense, final, schedule))
            if masks and step < schedule.steps:
                masks.set(chosen)
            else:
                self._cut(groups, chosen)
                observed = observed and BatchStatistics.cut(observed, chosen)
            if step == schedule.steps:
                break
            groups = self._groups()
            statistics = BatchStatistics(self.state.network, groups, self._window, masks)
            if observed:
                statistics.restore(observed)
            with masks.enforced() if masks else nullcontext():
                train(self.state, statistics, start)
            start += schedule.iterations
            scores, observed = self._score(groups, statistics), statistics.state()
            if resume:
                parts = {"weights": self.state.network.state_dict(), "training": self.state.tensors(), "scores": scores, "observed": observed}
                facts = {"done": step, "final": final, "start": start, "kept": self.kept, "edit": self.edit.model_dump(), "difference": self.difference}
                save_progress(resume, parts, facts | {"masked": chosen if masks else {}, "returned": masks.returned if masks else 0})
        self.returned = masks.returned if masks else 0
        return start

    def cut_to(self, widths: Widths, scores: Scores) -> None:
        """Keep the best channels of the network as it is now."""
        self._cut(self._groups(), best_channels(scores, widths))

    def _cut(self, groups: tuple[Group, ...], chosen: Kept) -> None:
        """Cut the network, its average and its moments, on the CPU."""
        tensors, network = self.state.tensors(), self.state.network.cpu()
        before = copy_network(network)
        edit = cut(network, groups, chosen, self._image_shape)
        self.difference = max(self.difference, check_cut(before, network, groups, chosen, self._image_shape))
        self.edit = self.edit.then(edit)
        self.kept = {name: tuple(self.kept[name][i] for i in chosen[name]) if name in chosen else channels for name, channels in self.kept.items()}
        self._go_on_with(network, carry_training(tensors, edit))

    def _go_on_with(self, network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
        to_channels_last(network)
        self.state = TrainState(network, self.state.config, tensors)
        self.state.require_live()

    def _rebuild(self, parts: dict[str, dict[str, torch.Tensor]], facts: dict[str, object]) -> None:
        """Take up what a killed run had saved."""
        network = self.state.network.cpu()
        self.edit = KeepChannels.model_validate(facts["edit"])
        keep_channels(network, self.edit)
        load_weights(network, parts["weights"])
        self.kept = {name: tuple(channels) for name, channels in facts["kept"].items()}  # type: ignore[attr-defined]  # JSON of our own
        self.difference = float(str(facts["difference"]))
        self._go_on_with(network, parts.get("training", {}))

    def _groups(self) -> tuple[Group, ...]:
        network = self.state.network
        found = find_groups(network.cpu(), self._image_shape)
        network.to(self.state.config.device)
        return found

    def _score(self, groups: tuple[Group, ...], statistics: BatchStatistics) -> Scores:
        if self._criterion in WEIGHT_CRITERIA:
            network = copy_network(self.state.network).cpu()
            return weight_scores(network, groups)[self._criterion]
        return statistics.scores()[self._criterion]
