"""Cutting a network in steps while it trains: re-scored and re-selected before every cut, the training's state carried through."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from bonsai.stages.networks.loading import load_weights
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.cuts import Choose, Cuts
from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.pruner import STATISTICS, Plan, Pruner
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.training.resume import load_progress, save_progress
from bonsai.stages.training.state import TrainState

Train = Callable[[TrainState, Pruner, int], None]
"""Trains for `schedule.iterations` steps from the step given, showing its gradients to the pruner."""


class Removal:
    """A network on its way from its dense to its final widths.

    Args:
        state: Training state of the dense network; each cut changes it in place.
        image_shape: (channels, height, width).
        criterion: Criterion by which the network is scored again before each later cut.
        schedule: Number of cuts, the training between them, and whether channels are masked before they are cut.
        window: Batches that criteria of batches are averaged over.
        groups: Groups of the network, if they are known already.

    Attributes:
        state: The training.
        pruner: Cuts it, and knows what was cut.
        returned: Channels that were masked and came back.
    """

    def __init__(
        self,
        state: TrainState,
        image_shape: tuple[int, ...],
        criterion: Criterion,
        schedule: ScheduleConfig,
        window: int,
        groups: tuple[Group, ...] | None = None,
    ) -> None:
        averages = (state.average,) if state.average else ()
        self.state, self.returned = state, 0
        self.pruner = Pruner(state.network, state.optimizer, image_shape, criterion=criterion, groups=groups, averages=averages, window=window)
        self._schedule = schedule

    @property
    def kept(self) -> Kept:
        """Channels of the dense network that are left, by group."""
        return self.pruner.kept

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
        schedule, pruner = self._schedule, self.pruner
        cuts = Cuts(schedule, {name: len(channels) for name, channels in self.kept.items() if name in final}, final, choose)
        saved = load_progress(resume) if resume else None
        if saved:
            cuts.done, cuts.final, scores, start = self._rebuild(*saved)
        elif observed:
            pruner.restore(observed)
        masks = pruner.masks = Masks(self.state.network, pruner.groups) if schedule.soft else None
        if masks and saved:
            masks.set({name: tuple(channels) for name, channels in saved[1]["masked"].items()})
            masks.returned = saved[1]["returned"]
        while not cuts.finished:
            chosen = cuts.advance(scores, pruner.groups)
            if masks and cuts.masks:
                masks.set(chosen)
            else:
                self._cut(chosen)
            if cuts.finished:
                break
            with masks.enforced() if masks else nullcontext():
                train(self.state, pruner, start)
            start += schedule.iterations
            scores = pruner.scores()
            if resume:
                facts = {"done": cuts.done, "final": cuts.final, "start": start, "masked": chosen if masks else {}, "returned": masks.returned if masks else 0}
                self._save(resume, facts, scores)
        self.returned = masks.returned if masks else 0
        return start

    def _cut(self, chosen: Kept) -> None:
        self.pruner.apply(Plan(kept=chosen))
        self.state.require_live()

    def _save(self, folder: Path, facts: dict[str, Any], scores: Scores) -> None:
        """Save the progress for a killed run."""
        pruner = self.pruner
        parts = {"weights": self.state.network.state_dict(), "training": self.state.tensors(), "scores": scores, "observed": pruner.state()}
        save_progress(folder, parts, facts | {"kept": pruner.kept, "edit": pruner.edit.model_dump(), "difference": pruner.difference})

    def _rebuild(self, parts: dict[str, dict[str, torch.Tensor]], facts: dict[str, Any]) -> tuple[int, Widths, Scores, int]:
        """Continue from the progress that a killed run had saved."""
        self.pruner.load_state_dict({name: facts[name] for name in ("kept", "edit", "difference")} | {STATISTICS: parts["observed"]})
        load_weights(self.state.network, parts["weights"])
        self.state.restore(parts.get("training", {}))
        self.state.require_live()
        return facts["done"], facts["final"], parts["scores"], facts["start"]
