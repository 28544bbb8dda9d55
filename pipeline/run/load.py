"""A network out of the store, as a plain `nn.Module`."""

from pathlib import Path

from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks import checkpoints
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import load_artifact

STAGES = ("train_dense", "prune", "recover", "quantize")


def load_network(folder: str | Path) -> nn.Module:
    """Load the network of a checkpoint: the original class, cut as it was, with its weights, in evaluation mode.

    A quantised network is a `torch.fx.GraphModule` of the class's graph. Nothing is unpickled: the structure is rebuilt
    from JSON, the weights are safetensors.

    Args:
        folder: ``artifacts/<train_dense|prune|recover|quantize>/<key>``; a package's manifest names them under `lineage`.

    Raises:
        ConfigError: The folder holds no checkpoint.
        VerificationError: One of its files is gone, or is not as it was written.
    """
    path = Path(folder).resolve()
    if path.parent.name not in STAGES or not (path / MANIFEST).is_file():
        raise ConfigError(
            describe("no checkpoint in this folder", given=folder, allowed=f"artifacts/<{'|'.join(STAGES)}>/<key>", fix="take one from a manifest's `lineage`")
        )
    return checkpoints.load_network(load_artifact(Checkpoint, path)).eval()
