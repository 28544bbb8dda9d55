"""Cutting a network in steps while it trains: re-scored before every cut, the optimizer's moments carried through."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from stages.models.registry import to_channels_last
from stages.pruning.groups import Kept, Widths, best_channels
from stages.pruning.schedule import ScheduleConfig, widths_after
from stages.pruning.scores import WEIGHT_CRITERIA, Criterion, Scores
from stages.pruning.statistics import GradientStatistics
from stages.pruning.surgery import check_cut, cut, find_groups
from stages.training.resume import optimizer_tensors, restore_optimizer

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
Train = Callable[[nn.Module, torch.optim.Optimizer, GradientStatistics, int], None]
"""Trains for `schedule.iterations` steps from the step given, showing its gradients to the statistics."""


class Removal:
    """A network on its way from its dense to its final widths.

    Args:
        network: Dense, trained; cut in place.
        optimizer: Of its parameters.
        image_shape: (channels, height, width).
        make_optimizer: Makes the same kind of optimizer for the cut network.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, image_shape: tuple[int, int, int], make_optimizer: MakeOptimizer) -> None:
        self.network = network
        self.optimizer = optimizer
        self.kept: Kept = {group.name: tuple(range(group.width)) for group in find_groups(network, image_shape)}
        self.difference = 0.0
        self._image_shape = image_shape
        self._make_optimizer = make_optimizer

    def run(self, final: Widths, scores: Scores, criterion: Criterion, schedule: ScheduleConfig, *, window: int, start: int, train: Train) -> int:
        """Cut down to the final widths and return the optimizer step at which the last cut is done.

        Args:
            final: Channels to keep per group.
            scores: Of the dense network.
            criterion: By what the network is scored again before each later cut.
            schedule: Number of cuts, and training between them.
            window: Batches that gradient criteria are averaged over.
            start: Optimizer step of the first cut.
            train: Trains between two cuts.
        """
        dense = {name: len(channels) for name, channels in self.kept.items() if name in final}
        for step in range(1, schedule.steps + 1):
            self.cut_to(widths_after(step, dense, final, schedule), scores)
            if step < schedule.steps:
                groups = find_groups(self.network, self._image_shape)
                statistics = GradientStatistics(self.network, groups, window)
                train(self.network, self.optimizer, statistics, start)
                start += schedule.iterations
                if criterion in WEIGHT_CRITERIA:
                    with torch.no_grad():
                        scores = {group.name: WEIGHT_CRITERIA[criterion](self.network, group) for group in groups}
                else:
                    scores = statistics.scores()[criterion]
        return start

    def cut_to(self, widths: Widths, scores: Scores) -> None:
        """Keep the best channels of the network as it is now.

        A twin of the network that holds the optimizer's moments as its weights is cut in the same way: whatever the surgery
        does to a parameter, it does to its moments.
        """
        groups = find_groups(self.network, self._image_shape)
        chosen = best_channels(scores, widths)
        before, moments = copy.deepcopy(self.network), optimizer_tensors(self.network, self.optimizer)
        carried: dict[str, torch.Tensor] = {}
        for moment in {key.partition(".")[0] for key in moments}:
            twin = copy.deepcopy(self.network)
            twin.load_state_dict({name: moments[f"{moment}.{name}"] for name, _ in twin.named_parameters()}, strict=False)
            cut(twin, groups, chosen, self._image_shape)
            carried |= {f"{moment}.{name}": parameter.detach().clone() for name, parameter in twin.named_parameters()}
        cut(self.network, groups, chosen, self._image_shape)
        self.difference = max(self.difference, check_cut(before, self.network, groups, chosen, self._image_shape))
        to_channels_last(self.network)
        self.optimizer = self._make_optimizer(self.network)
        restore_optimizer(self.network, self.optimizer, carried)
        self.kept = {name: tuple(self.kept[name][i] for i in chosen[name]) if name in chosen else channels for name, channels in self.kept.items()}
        require_live(self.network, self.optimizer)


def require_live(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Assert that the optimizer holds exactly the network's trainable parameters, and moments of their shapes alone."""
    live = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == live and len(held) == len(live), "the optimizer holds other parameters than the network"
    for parameter, state in optimizer.state.items():
        assert all(value.shape == parameter.shape for value in state.values() if isinstance(value, torch.Tensor)), "a moment has another shape than its weight"
