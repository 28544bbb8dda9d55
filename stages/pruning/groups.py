"""Groups of coupled channels, and the widths that they may keep."""

from bonsai.profiles.located_yaml import Record

Widths = dict[str, int]
Kept = dict[str, tuple[int, ...]]


class Member(Record):
    """One dimension of one module that a group runs through.

    Attributes:
        module: Dotted name in the network.
        side: ``out`` for the channels it produces, ``in`` for those it consumes.
        indices: Positions in the module's dimension.
        channels: The group's channel that each position belongs to; as long as `indices`.
    """

    module: str
    side: str
    indices: tuple[int, ...]
    channels: tuple[int, ...]


class Group(Record):
    """Channels that must leave together.

    Attributes:
        name: The first module, in the network's order, that produces the channels.
        width: Channels of the dense network.
    """

    name: str
    width: int
    members: tuple[Member, ...]


class WidthPlan(Record):
    """Channels to keep per group; a group without an entry stays whole."""

    widths: Widths = {}


def first_channels(widths: Widths) -> Kept:
    """Keep the first channels of every group: for untrained networks, where only the number matters."""
    return {name: tuple(range(width)) for name, width in widths.items()}
