"""Measures what the absence of a residual block costs: the increase of the loss on training images, without any training after it."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.feeding import Batch
from bonsai.stages.networks.calling import copy_network, evaluating, outputs_of
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.pruning.coupling.editing import edit_of
from bonsai.stages.pruning.coupling.masking import masked
from bonsai.stages.pruning.groups import Group, blocks_of
from bonsai.stages.pruning.scores import best_channels
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.task import Learning
from bonsai.stages.training.progress import report


class BlockLoss(Record):
    """One residual block.

    Attributes:
        name: Its module.
        groups: Groups inside of it.
        loss: Increase of the loss without it.
    """

    name: str
    groups: tuple[str, ...]
    loss: float


class BlockLosses(Artifact):
    """What the absence of each residual block costs; no files of its own.

    Attributes:
        blocks: The blocks, in the network's order.
        halved: Increase of the loss without the lower half of a group's channels, by group of these blocks.
    """

    blocks: tuple[BlockLoss, ...]
    halved: dict[str, float]

    @property
    def tell(self) -> bool:
        """Whether the loss rises where channels leave, so that it tells what a block is worth."""
        return sum(self.halved.values()) > 0


def measure_blocks(
    network: nn.Module, groups: Sequence[Group], scores: Mapping[str, torch.Tensor], batches: Sequence[Batch], learning: Learning
) -> tuple[tuple[BlockLoss, ...], dict[str, float]]:
    """Return what the absence of each block costs, and that of half of each of its groups.

    BatchNorms normalise by the batch's own statistics, as they would after a few steps of training.

    Args:
        network: Left as it was.
        groups: Its groups, with their blocks.
        scores: Scores of the channels, by group.
        batches: Training images and targets.
        learning: The task's.
    """
    blocks = blocks_of(groups)
    before = loss_of(copy_network(network), batches, learning)
    done, total = 0, len(blocks) + sum(map(len, blocks.values()))
    found, halved = list[BlockLoss](), dict[str, float]()
    for name, inside in blocks.items():
        shorter = copy_network(network)
        keep_channels(shorter, KeepChannels(dropped=(name,)))
        found.append(BlockLoss(name=name, groups=inside, loss=loss_of(shorter, batches, learning) - before))
        for group in inside:
            halved[group] = loss_halved(network, groups, group, scores, batches, learning) - before
        done += 1 + len(inside)
        report("blocks", done=done, total=total, first=0, unit="trial")
    return tuple(found), halved


def loss_halved(
    network: nn.Module, groups: Sequence[Group], name: str, scores: Mapping[str, torch.Tensor], batches: Iterable[Batch], learning: Learning
) -> float:
    """Return the mean loss without the lower half of a group's channels; arguments as for `measure_blocks`."""
    (group,) = (group for group in groups if group.name == name)
    half = best_channels(scores, {name: group.half})
    with masked(narrower := copy_network(network), edit_of(network, groups, half)):
        return loss_of(narrower, batches, learning)


@torch.no_grad()
def loss_of(network: nn.Module, batches: Iterable[Batch], learning: Learning) -> float:
    """Return the mean loss of a copy of a network, whose BatchNorms normalise by the batch's own statistics and take them up."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    with evaluating(network, but=norms):
        return mean(float(learning.loss(outputs_of(network, images), targets)) for images, targets in batches)
