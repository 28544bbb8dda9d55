"""Stage `weigh_blocks`: what the absence of each residual block costs, when a branch leaves the trunk."""

from math import ceil
from pathlib import Path

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_scores
from bonsai.stages.pruning.block_losses import BlockLosses, measure_blocks
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.state import reproducible

IMAGES = 256
"""Training images that the losses are means over."""


def figures_of(found: BlockLosses) -> str:
    """Return the least and the largest increase of the loss, in a few words."""
    losses = [block.loss for block in found.blocks]
    return f"{len(losses)} blocks, loss {min(losses):+.3g} to {max(losses):+.3g} without one" if losses else "no blocks"


@stage(version=1, tools=("torch", "torchvision"), figures=figures_of)
def weigh_blocks(out_dir: Path, segment: Checkpoint, dataset: Dataset, training: TrainConfig, criterion: Criterion) -> BlockLosses:
    """Measure the increase of the loss without each residual block of a network, and without half of the channels in it.

    Args:
        out_dir: Stays empty.
        segment: The trunk's segment at which the branch leaves.
        dataset: Source of the training images.
        training: The cycle; the images are those of its next steps.
        criterion: Ranks the channels of which half is left.
    """
    phase = Phase("trunk", dataset, training, out_dir / RESUME)
    with reproducible(training):
        network = load_network(segment)
        groups = groups_with_blocks(network, segment.image_shape)
        batches = [phase.batches.batch(segment.step + place) for place in range(ceil(IMAGES / training.batch_size))]
        blocks, halved = measure_blocks(network.to(training.device), groups, load_scores(segment, criterion), batches, phase.learning)
    return BlockLosses(folder=out_dir, blocks=blocks, halved=halved)
