"""A network out of the store or out of a package, as a plain `nn.Module`."""

from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from bonsai.profiles.bounded_json import read_json
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.delivery.sums import SUMS
from bonsai.stages.networks import checkpoints
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.packed import PROGRAM, RECORD, read_network
from bonsai.stages.store.manifest import MANIFEST, require_intact


def load(folder: str | Path) -> nn.Module:
    """Load the network of a package or of a checkpoint: the class that the recipe names, cut as it was, with its weights, in evaluation mode.

    A quantised network is a `torch.fx.GraphModule` of the class's graph; it computes in float what the INT8 engine computes. Nothing is
    unpickled: the structure is rebuilt from JSON, the weights are safetensors.

    Args:
        folder: A package, or the folder of an artifact that holds a network, such as ``artifacts/recover/<key>``; a package's manifest names
            them under `lineage`.

    Raises:
        ConfigError: The folder holds no network, or its class cannot be imported or called here.
        VerificationError: One of its files is gone, or is not as it was written.
    """
    path = Path(folder).resolve()
    if (path / SUMS).is_file():
        return _load_packaged(path).eval()
    if not _is_artifact(path):
        raise _no_network(folder)
    record = require_intact(path).record
    try:
        checkpoint = Checkpoint.model_validate({**record, "folder": path})
    except ValidationError:
        raise _no_network(folder) from None
    return checkpoints.load_network(checkpoint).eval()


def _load_packaged(package: Path) -> nn.Module:
    if RECORD not in read_intact(package).files:
        fix = "set package.network=true and repeat the run, or load a checkpoint of the store"
        raise ConfigError(describe("the package holds no network for torch", given=f"no {RECORD} in {package}", allowed="a package with it", fix=fix))
    try:
        return read_network(package)
    except ConfigError as error:
        without = f"torch.export.load({str(package / PROGRAM)!r}).module() opens the network without its class, in a package that you trust"
        raise ConfigError(f"{error}\n  or:      {without}") from error


def _is_artifact(folder: Path) -> bool:
    """Return whether a folder has the manifest of an artifact, or a damaged one: a package's has no record."""
    if not (folder / MANIFEST).is_file():
        return False
    with suppress(OSError, ValueError):
        facts = read_json(folder / MANIFEST)
        return isinstance(facts, dict) and "record" in facts
    return True


def _no_network(folder: str | Path) -> ConfigError:
    allowed = "a package, or the folder of what a stage left of a network, such as artifacts/recover/<key>"
    return ConfigError(describe("no network in this folder", given=folder, allowed=allowed, fix="take one from a manifest's `lineage`"))
