"""Stage `fuse`: the branches of a trained network become the layers that do the same."""

from pathlib import Path

import torch

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_network, save_tensors
from bonsai.stages.networks.edits.fusing import fuse as fuse_network
from bonsai.stages.networks.edits.fusing import fusion_of, require_same_fused
from bonsai.stages.networks.edits.records import Fuse
from bonsai.stages.store.store import stage

COMPARED = 8
"""Number of validation images on which the fused network is compared with its branches."""
DIFFERENCE = "fused_difference"


def figures_of(fused: Checkpoint) -> str:
    """Return how much was fused, in a few words."""
    modules = sum(len(edit.modules) for edit in fused.edits if isinstance(edit, Fuse))
    return f"{modules} modules fused, outputs differ by {fused.metrics[DIFFERENCE]:.1e}"


@stage(version=1, tools=("torch",), figures=figures_of)
def fuse(out_dir: Path, trained: Checkpoint, dataset: Dataset) -> Checkpoint:
    """Fuse a network by its own methods, and compare it with its branches on validation images.

    Args:
        out_dir: Receives the weights.
        trained: A float network that has branches to fuse, at the end of its training.
        dataset: Source of the images.

    Raises:
        Unfusable: The fused network computes something else.
    """
    network = load_network(trained)
    edit = fusion_of(network)
    assert edit is not None, "only networks with branches are fused"
    difference = require_same_fused(network, edit, torch.from_numpy(Part(dataset, "validation").first(COMPARED)))
    fuse_network(network, edit)
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    return trained.successor(out_dir, edits=(*trained.edits, edit), metrics={DIFFERENCE: difference})
