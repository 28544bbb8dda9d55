"""Cutting channels out of a network, and checking what is left."""

from torch import nn

from bonsai.stages.imports.user_code import FAILURES, say_what
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.inspection import random_inputs
from bonsai.stages.pruning.coupling.editing import edit_of
from bonsai.stages.pruning.coupling.masking import masked
from bonsai.stages.pruning.equality import Uncuttable, outputs, require_equal
from bonsai.stages.pruning.groups import Group, Kept, blocks_of

TRIAL_IMAGES = 4


def cut(network: nn.Module, groups: tuple[Group, ...], kept: Kept) -> KeepChannels:
    """Remove from `network`, in place, every channel that `kept` does not name, and return what was done.

    Args:
        network: The network that `groups` were found in; where an error is raised, it is left as it was.
        groups: Groups from `find_groups`.
        kept: Channels to keep by group name, ascending; a group without an entry stays whole. A residual block is left out where none of its groups
            keeps any.

    Raises:
        ValueError: A group does not exist, would be emptied alone, or a channel does not exist.
        Uncuttable: A parameter cannot be replaced.
    """
    by_name = {group.name: group for group in groups}
    for name, channels in kept.items():
        if name not in by_name:
            raise ValueError(f"cannot cut group {name!r}: the network has {', '.join(by_name)}")
        gone = by_name[name].block and all(kept.get(other) == () for other in blocks_of(groups)[by_name[name].block])
        if (not channels and not gone) or not set(channels) <= set(range(by_name[name].width)):
            raise ValueError(f"cannot cut group {name!r} to channels {channels}: keep at least one of 0..{by_name[name].width - 1}")
    edit = edit_of(network, groups, kept)
    twin = copy_network(network)
    try:
        keep_channels(twin, edit)
    except FAILURES as error:
        blame_memory(error)
        raise Uncuttable(f"the network cannot be cut: {say_what(error)}") from error
    keep_channels(network, edit)
    return edit


def check_cut(dense: nn.Module, pruned: nn.Module, edit: KeepChannels, image_shape: tuple[int, ...]) -> float:
    """Return how far removing channels differs from masking them, relative to how much outputs vary between images.

    Raises:
        Uncuttable: The difference exceeds `TOLERANCE`: the network's coupling was not understood.
    """
    images = random_inputs(TRIAL_IMAGES, dense, image_shape)
    with masked(copied := copy_network(dense), edit):
        expected = outputs(copied, images)
    return require_equal(expected, outputs(pruned, images))
