"""The network of a package, for torch: as a program that needs no class, and as weights for the class that the recipe names.

torch.export.load("network.pt2").module()     # plain torch; it unpickles, so only for packages that you trust
bonsai.load("PACKAGE")                        # the class of the recipe, cut as the package's network is; nothing is unpickled
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from bonsai.profiles.bounded_json import read_json
from bonsai.stages.graph.program import save_program
from bonsai.stages.graph.untraceable import Untraceable
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import build, load_network, save_tensors
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.training.progress import say

PROGRAM, PACKED_WEIGHTS, RECORD = "network.pt2", "network.safetensors", "network.json"
TOLD = {"history", "metrics", "digest", "key"}
"""What a package's manifest says already, or what has no meaning outside of the store."""


def write_network(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the network of a checkpoint into a package.

    The program is left out, and the user is told, where torch.export cannot follow the network: a finished training is not lost for it.

    Args:
        folder: The package.
        checkpoint: The network that the engine was exported from; a quantised one computes as INT8 with float numbers.
    """
    network = load_network(checkpoint)
    save_tensors(folder / PACKED_WEIGHTS, network.state_dict())
    (folder / RECORD).write_text(checkpoint.model_dump_json(exclude=TOLD), encoding="utf-8")
    try:
        with evaluating(network):
            save_program(network, checkpoint.image_shape, folder / PROGRAM)
    except Untraceable as error:
        say(f"{PROGRAM} is left out of the package: torch.export cannot write the network: {error}")


def read_network(folder: Path) -> nn.Module:
    """Return the network of a package, whose files were found intact, in training mode.

    Raises:
        ConfigError: The class that the recipe names cannot be imported or called.
    """
    made = Checkpoint.model_validate({**read_json(folder / RECORD), "folder": folder})
    network = build(made.model, made.image_shape, made.num_classes, made.edits)
    load_weights(network, load_file(folder / PACKED_WEIGHTS))
    return network
