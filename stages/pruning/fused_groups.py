"""The groups of a network whose branches are fused before it runs: its latency and its size are those of the fused network."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from torch import nn

from bonsai.profiles.errors import describe
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.fusing import Unfusable, fuse, fusion_of, require_same_fused
from bonsai.stages.networks.edits.records import Fuse
from bonsai.stages.networks.inspection import random_inputs
from bonsai.stages.pruning.coupling.editing import edit_of
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.settling import settle, wake
from bonsai.stages.pruning.surgery import TRIAL_IMAGES


class Deployed(NamedTuple):
    """A dense network as it is exported.

    Attributes:
        network: With its branches fused, where it has some; else the network itself.
        groups: The groups of the network that is trained, by their names, in this one.
        edit: What was fused; None where there is nothing to fuse.
    """

    network: nn.Module
    groups: tuple[Group, ...]
    edit: Fuse | None = None


def deployed_form(network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> Deployed:
    """Return a dense network as it is exported, with the groups that it is pruned by. The given network is left as it was.

    Only the numbers of channels of the fused network's groups mean something: a fused channel need not be the one that its branches had at that place.

    Args:
        network: As it is trained.
        groups: Its groups.
        image_shape: (channels, height, width).

    Raises:
        Unfusable: The network cannot be fused, or not without some of its channels; or the fused one has other groups.
    """
    edit = fusion_of(network)
    if edit is None:
        return Deployed(network, groups)
    fused = copy_network(network)
    fuse(fused, edit)
    return Deployed(fused, _renamed(network, edit, groups, fused, find_groups(fused, image_shape)), edit)


def require_fusable(network: nn.Module, edit: Fuse, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> None:
    """Check on copies whose outputs vary that the fused network computes what its branches do: with all of its channels, and with half of each group.

    Raises:
        Unfusable: It does not.
    """
    images = random_inputs(TRIAL_IMAGES, network, image_shape)
    twin = copy_network(network)
    wake(twin, images)
    settle(twin, images)
    require_same_fused(twin, edit, images)
    keep_channels(twin, edit_of(twin, groups, {group.name: tuple(range(1, group.width // 2 + 1)) or (0,) for group in groups}))
    settle(twin, images)
    require_same_fused(twin, edit, images)


def _renamed(network: nn.Module, edit: Fuse, groups: tuple[Group, ...], fused: nn.Module, found: tuple[Group, ...]) -> tuple[Group, ...]:
    """Return the groups of the fused network under the names of those of the branches; several that leave together are one.

    Every group has a number. For each binary digit of the numbers, one channel leaves of the groups whose number has it. What the fused network
    loses then tells which of its groups belong to which number.
    """
    before, numbers = _sizes(fused), np.zeros(len(found), dtype=int)
    places = {place: row for row, place in enumerate(sorted({(each.tensor, each.axis) for group in found for each in group.tensors}))}
    positions = np.zeros((len(places), len(found)))
    for column, group in enumerate(found):
        for each in group.tensors:
            positions[places[each.tensor, each.axis], column] += len(each.indices) / group.width
    for digit in range(len(groups).bit_length()):
        leaving = [group for number, group in enumerate(groups, 1) if number >> digit & 1]
        after = _sizes(_cut_and_fused(network, edit, groups, {group.name: tuple(range(group.width - 1)) for group in leaving}))
        lost = np.array([before[place] - after[place] for place in places])
        channels = np.linalg.lstsq(positions, lost, rcond=None)[0].round()
        if not np.array_equal(positions @ channels, lost) or any(before[place] != size for place, size in after.items() if place not in places):
            raise _other_groups(f"without a channel of each of {len(leaving)} groups, the fused network has other sizes than its own groups allow")
        numbers |= (channels > 0).astype(int) << digit
    joined: dict[int, list[Group]] = defaultdict(list)
    for number, group in zip(numbers.tolist(), found, strict=True):
        joined[number].append(group)
    missing = [group.name for number, group in enumerate(groups, 1) if number not in joined]
    if missing or max(joined, default=0) > len(groups):
        raise _other_groups(f"{', '.join(missing) or 'some groups'} of the branches are no groups of their own in the fused network")
    return tuple(_joined(group, joined[number]) for number, group in enumerate(groups, 1))


def _joined(group: Group, parts: Iterable[Group]) -> Group:
    """Return a group with what is in several, whose channels are numbered as those of the group are, or in equal runs."""

    def numbered(part: Group, channels: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(channel * group.width // part.width for channel in channels)

    return group.model_copy(
        update={
            "members": tuple(m.model_copy(update={"channels": numbered(part, m.channels)}) for part in parts for m in part.members),
            "tensors": tuple(t.model_copy(update={"channels": numbered(part, t.channels)}) for part in parts for t in part.tensors),
            "counts": tuple(c.model_copy(update={"channels": numbered(part, c.channels)}) for part in parts for c in part.counts),
        }
    )


def _cut_and_fused(network: nn.Module, edit: Fuse, groups: tuple[Group, ...], kept: Kept) -> nn.Module:
    twin = copy_network(network)
    keep_channels(twin, edit_of(twin, groups, kept))
    fuse(twin, edit)
    return twin


def _sizes(network: nn.Module) -> Mapping[tuple[str, int], int]:
    return {(name, axis): size for name, value in network.state_dict().items() for axis, size in enumerate(value.shape)}


def _other_groups(given: str) -> Unfusable:
    return Unfusable(
        describe(
            "the groups of the network's branches are not those of the fused network",
            given=given,
            allowed="branches that are fused layer by layer",
            fix="take the branches out of the network, or keep the layers whole that are named",
        )
    )
