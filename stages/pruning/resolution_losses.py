"""Measures what smaller images cost a network: the increase of the validation loss, without any training after it."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.feeding import Batch
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.pruning.block_losses import loss_halved, loss_of
from bonsai.stages.pruning.groups import Group
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.task import Learning
from bonsai.stages.training.progress import report


class ResolutionLoss(Record):
    """One size of images.

    Attributes:
        size: Height and width in pixels.
        loss: Increase of the loss.
    """

    size: tuple[int, int]
    loss: float


class ResolutionLosses(Artifact):
    """What smaller images cost; no files of its own.

    Attributes:
        sizes: The smaller sizes, the largest first.
        halved: Increase of the loss without the lower half of a group's channels, by group.
    """

    sizes: tuple[ResolutionLoss, ...]
    halved: dict[str, float]

    @property
    def tell(self) -> bool:
        """Whether the loss rises where channels leave, so that it tells what a size is worth."""
        return sum(self.halved.values()) > 0


def measure_resolutions(
    network: nn.Module,
    groups: Sequence[Group],
    names: Collection[str],
    scores: Mapping[str, torch.Tensor],
    full: Sequence[Batch],
    smaller: Mapping[tuple[int, int], Sequence[Batch]],
    learning: Learning,
) -> tuple[tuple[ResolutionLoss, ...], dict[str, float]]:
    """Return what each smaller size costs, and what half of each group's channels does.

    BatchNorms normalise by the batch's own statistics, as they would after a few steps of training.

    Args:
        network: Left as it was.
        groups: All of its groups.
        names: The groups that may be pruned.
        scores: Scores of the channels, by group.
        full: Images of the full size, and targets.
        smaller: The same images by smaller sizes.
        learning: The task's.
    """
    before = loss_of(copy_network(network), full, learning)
    found = tuple(ResolutionLoss(size=size, loss=loss_of(copy_network(network), batches, learning) - before) for size, batches in smaller.items())
    halved = dict[str, float]()
    for name in names:
        halved[name] = loss_halved(network, groups, name, scores, full, learning) - before
        report("resolutions", done=len(halved), total=len(names), first=0, unit="trial")
    return found, halved
