"""A network out of the store, as a plain `nn.Module`."""

from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from bonsai.profiles.bounded_json import read_json
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks import checkpoints
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.store.manifest import MANIFEST, require_intact


def load_network(folder: str | Path) -> nn.Module:
    """Load the network of a checkpoint: the original class, cut as it was, with its weights, in evaluation mode.

    A quantised network is a `torch.fx.GraphModule` of the class's graph. Nothing is unpickled: the structure is rebuilt
    from JSON, the weights are safetensors.

    Args:
        folder: Folder of an artifact that holds a network, such as ``artifacts/recover/<key>``; a package's manifest names them under `lineage`.

    Raises:
        ConfigError: The folder holds no checkpoint.
        VerificationError: One of its files is gone, or is not as it was written.
    """
    path = Path(folder).resolve()
    if not _is_artifact(path):
        raise _no_checkpoint(folder)
    record = require_intact(path).record
    try:
        checkpoint = Checkpoint.model_validate({**record, "folder": path})
    except ValidationError:
        raise _no_checkpoint(folder) from None
    return checkpoints.load_network(checkpoint).eval()


def _is_artifact(folder: Path) -> bool:
    """Return whether a folder has the manifest of an artifact, or a damaged one: a package's has no record."""
    if not (folder / MANIFEST).is_file():
        return False
    with suppress(OSError, ValueError):
        facts = read_json(folder / MANIFEST)
        return isinstance(facts, dict) and "record" in facts
    return True


def _no_checkpoint(folder: str | Path) -> ConfigError:
    allowed = "the folder of what a stage left of a network, such as artifacts/recover/<key>"
    return ConfigError(describe("no checkpoint in this folder", given=folder, allowed=allowed, fix="take one from a manifest's `lineage`"))
