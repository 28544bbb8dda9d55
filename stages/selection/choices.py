"""Lists the widths that selection may choose from."""

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.limits import shares, width_options
from bonsai.stages.selection.terms import Options


def width_choices(groups: tuple[Group, ...], config: PruneConfig, profile: HardwareProfile) -> Options:
    """Return the widths in channels that each group may keep on a target, ascending; 0 for one whose residual block may be left out.

    Args:
        groups: Groups of the dense network.
        config: Floors and caps.
        profile: The target; widths are multiples of its step.

    Raises:
        ConfigError: No group has a choice, or one has no width at all.
    """
    floors = shares(groups, config.floors, config.floor, "prune.floors")
    caps = shares(groups, config.caps, 1, "prune.caps")
    options = {g.name: ((0,) if g.block else ()) + width_options(g, step=profile.width_step, floor=floors[g.name], cap=caps[g.name]) for g in groups}
    if all(len(widths) == 1 for widths in options.values()):
        raise ConfigError(
            describe(
                f"profile {profile.name}: no group has two widths to choose from",
                given=f"at most {max(group.width for group in groups)} channels, a step of {profile.width_step}, a floor of {config.floor:.0%}",
                allowed="at least one group wider than one step and its floor",
                fix="lower prune.floor or profile.channel_multiple, or choose a wider network",
            )
        )
    return options
