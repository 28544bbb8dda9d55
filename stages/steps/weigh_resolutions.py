"""Stage `weigh_resolutions`: what smaller images cost, when a branch leaves the trunk."""

from math import ceil
from pathlib import Path

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.feeding import Batch
from bonsai.stages.data.source import open_part
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_scores
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.resolution_losses import ResolutionLosses, measure_resolutions
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.tasks.task import Task
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import AugmentConfig, TrainConfig
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.state import reproducible

IMAGES = 256
"""Validation images that the losses are means over."""


def figures_of(found: ResolutionLosses) -> str:
    """Return the increase of the loss at every size, in a few words."""
    return ", ".join(f"{'x'.join(map(str, each.size))} loss {each.loss:+.3g}" for each in found.sizes)


@stage(version=1, tools=("torch", "torchvision"), figures=figures_of)
def weigh_resolutions(
    out_dir: Path, segment: Checkpoint, dataset: Dataset, smaller: tuple[Dataset, ...], training: TrainConfig, criterion: Criterion, groups: tuple[str, ...]
) -> ResolutionLosses:
    """Measure the increase of the validation loss of a network with smaller images, and without half of the channels of each group.

    Args:
        out_dir: Stays empty.
        segment: The trunk's segment at which the branch leaves.
        dataset: Source of the validation images.
        smaller: The same images in smaller sizes, the largest first.
        training: The loss, and the size of a batch.
        criterion: Ranks the channels of which half is left.
        groups: Names of the groups that may be pruned.
    """
    phase = Phase("trunk", dataset, training, out_dir / RESUME)
    with reproducible(training):
        network = load_network(segment)
        found = find_groups(network, segment.image_shape)
        full, *others = (_batches(each, training, phase.task) for each in (dataset, *smaller))
        sizes = {_size(each): batches for each, batches in zip(smaller, others, strict=True)}
        scores = load_scores(segment, criterion)
        losses, halved = measure_resolutions(network.to(training.device), found, groups, scores, full, sizes, phase.learning)
    return ResolutionLosses(folder=out_dir, sizes=losses, halved=halved)


def _size(dataset: Dataset) -> tuple[int, int]:
    _, height, width = dataset.image_shape
    return height, width


def _batches(dataset: Dataset, training: TrainConfig, task: Task) -> list[Batch]:
    """Return validation images as they are, drawn at random: the same ones at every size."""
    plain = training.model_copy(update={"augment": AugmentConfig(), "balance": "none"})
    batches = Batches(open_part(dataset, "validation"), plain, task)
    return [batches.batch(number) for number in range(min(ceil(IMAGES / training.batch_size), batches.per_epoch))]
