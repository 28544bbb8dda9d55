"""The user's limits for single layers: keep all channels, or at least a floor, or at most a cap."""

from collections.abc import Iterable, Mapping
from math import ceil, gcd

from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.layer_names import matching
from bonsai.stages.pruning.groups import Group
from bonsai.stages.training.progress import say


def prunable(groups: tuple[Group, ...], keep: Iterable[str], network: nn.Module) -> tuple[Group, ...]:
    """Return the groups that are not to be kept whole.

    Args:
        groups: All groups.
        keep: Globs over names of layers or of what holds them; a layer's output channels are kept, and so are those coupled
            with them.
        network: Network in which the groups were found.

    Raises:
        ConfigError: A glob matches no layer.
    """
    layers = [name for name, module in network.named_modules() if name and any(True for _ in module.parameters(recurse=False))]
    whole = set()
    for pattern in keep:
        matched = {group.name for group in _matching(pattern, groups, layers, "prune.keep")}
        if not matched:
            say(f"warning: prune.keep {pattern!r} changes nothing: no channels of what it names could be pruned")
        whole |= matched
    return tuple(group for group in groups if group.name not in whole)


def described(group: Group) -> str:
    """Return a group's width, and the positions of each channel where these are several, in words."""
    return f"{group.width} channels" + (f" of {group.positions} positions each" if group.positions > 1 else "")


def least_channels(group: Group, floor: float) -> int:
    """Return the fewest channels of a group that a floor, a share 0-1 of its dense width, leaves."""
    return max(1, ceil(floor * group.width))


def width_step(group: Group, step: int) -> int:
    """Return the fewest channels of a group whose positions are a multiple of a device's step: one head, if it has 64 positions and the step is 16."""
    return step // gcd(step, group.positions)


def width_options(group: Group, *, step: int, floor: float, cap: float = 1) -> tuple[int, ...]:
    """Return the widths that a group may keep, ascending.

    These are the widths from `floor` to `cap` whose positions, in the layer that names the group, are a multiple of the device's step. If the cap
    is 1, the dense width is one too. Where a layer's channels belong to several groups, each group keeps multiples for itself. Their sum is
    a multiple too, unless a group keeps its dense width or some channels belong to no group.

    Args:
        group: The group.
        step: Channel multiple of the device's kernels.
        floor: Least share of the dense width.
        cap: Largest share of the dense width.

    Raises:
        ConfigError: There is none.
    """
    step = width_step(group, step)
    least = max(step, least_channels(group, floor))
    options = [w for w in range(step, group.width, step) if least <= w <= cap * group.width]
    options += [group.width] if cap == 1 else []
    if not options:
        raise ConfigError(
            describe(
                f"group {group.name} cannot be cut as asked",
                given=f"{described(group)}, a floor of {floor:.0%}, a cap of {cap:.0%}, a step of {step}",
                allowed="a multiple of the step between floor and cap",
                fix="raise its prune.caps, lower its prune.floors or the profile's channel_multiple",
            )
        )
    return tuple(options)


def shares(groups: tuple[Group, ...], given: Mapping[str, float], default: float, what: str) -> dict[str, float]:
    """Return a share by group: that of the last glob which matches one of its layers, or the default.

    Raises:
        ConfigError: A glob matches no layer of a group.
    """
    found = dict.fromkeys((group.name for group in groups), default)
    for pattern, share in given.items():
        found |= {group.name: share for group in _matching(pattern, groups, (), what)}
    return found


def _matching(pattern: str, groups: tuple[Group, ...], layers: Iterable[str], what: str) -> list[Group]:
    """Return the groups of which a layer that the pattern matches, itself or by what holds it, produces channels."""
    producers = {group.name: {m.module for m in group.members if m.side == "out"} for group in groups}
    names = sorted(set(layers).union(*producers.values()))
    found = set(matching(pattern, names, problem=f"{what}: no layer{'' if layers else ' whose channels may be pruned'} has this name"))
    return [group for group in groups if found & producers[group.name]]
