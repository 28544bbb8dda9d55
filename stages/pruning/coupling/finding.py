"""Finding the groups of channels that leave together."""

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import FAILURES, place_of, say_what
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import computed_tensors, evaluating
from bonsai.stages.networks.several_outputs import outputs_as_they_are
from bonsai.stages.pruning.coupling.following import follow
from bonsai.stages.pruning.coupling.library import Members, library_groups
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.coupling.units import groups_of, layers_that_stay
from bonsai.stages.pruning.equality import outputs
from bonsai.stages.pruning.groups import Group


def find_groups(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[Group, ...]:
    """Return the groups of channels that may be removed; those that make up the outputs are left out.

    The positions come from one forward pass whose tensors carry labels. Where Torch-Pruning's graph names the same positions, its members are taken.

    Args:
        network: A dense or pruned network; it is left as it was.
        image_shape: (channels, height, width), or (channels, time).

    Raises:
        ConfigError: The network's own code fails.
    """
    with evaluating(network):  # a parametrised weight may change its state whenever it is looked at in training: spectral_norm
        groups = groups_of(network, _followed(network, image_shape))
        library = {_content(members): members for members in library_groups(network, image_shape)}
        if computed_tensors(network):  # what its forward has kept for later would not be copied
            outputs(network, torch.zeros(2, *image_shape))
    return tuple(group.model_copy(update={"members": library.get(_content(group.members), group.members)}) for group in groups)


def fixed_layers(network: nn.Module, image_shape: tuple[int, ...]) -> dict[str, str]:
    """Return the layers whose channels stay, other than those that make up the outputs, each with the reason."""
    with evaluating(network):
        return layers_that_stay(network, _followed(network, image_shape))


def _followed(network: nn.Module, image_shape: tuple[int, ...]) -> Recorder:
    try:
        with outputs_as_they_are():
            return follow(network, image_shape)
    except FAILURES as error:
        blame_memory(error)
        raise ConfigError(
            describe(
                "the couplings of the network's channels cannot be found",
                given=say_what(error) + ("" if place_of(error) else ", in torch"),
                allowed="a forward that runs on images of the dataset's shape",
                fix="mend the line named above, or choose another model",
            )
        ) from error


def _content(members: Members) -> frozenset[tuple[str, str, tuple[tuple[int, int], ...]]]:
    return frozenset((member.module, member.side, tuple(sorted(zip(member.indices, member.channels, strict=True)))) for member in members)
