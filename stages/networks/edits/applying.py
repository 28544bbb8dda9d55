"""Applies an edit of any kind to a network."""

from torch import nn

from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.fusing import fuse
from bonsai.stages.networks.edits.records import Edit, Fuse, KeepChannels
from bonsai.stages.quantization.insert import insert_quantizers


def apply(network: nn.Module, edit: Edit, image_shape: tuple[int, ...]) -> nn.Module:
    """Return the edited network. The given one is changed in place, or shares its modules with the result.

    Args:
        network: The network, with all earlier edits applied.
        edit: What to change.
        image_shape: (channels, height, width) of the image that the network is traced with to insert quantisers.
    """
    if isinstance(edit, KeepChannels):
        keep_channels(network, edit)
        return network
    if isinstance(edit, Fuse):
        fuse(network, edit)
        return network
    return insert_quantizers(network, image_shape, edit)
