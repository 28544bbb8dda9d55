"""Groups of coupled channels, and the widths that they may keep."""

from collections.abc import Iterable

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


class TensorAxis(Record):
    """One dimension of one parameter or buffer that a group runs through.

    Attributes:
        tensor: Dotted name in the network.
        axis: The dimension.
        indices: Positions in the dimension.
        channels: The group's channel that each position belongs to; as long as `indices`.
    """

    tensor: str
    axis: int
    indices: tuple[int, ...]
    channels: tuple[int, ...]


class Count(Record):
    """A whole number that a module keeps, and that falls as channels leave.

    Attributes:
        attribute: ``<module>.<attribute>``.
        entry: Place in the attribute, where that is a list or a tuple.
        channels: The group's channel of each position that is counted and may leave.
    """

    attribute: str
    entry: int | None = None
    channels: tuple[int, ...]


class Group(Record):
    """Channels that must leave together. A channel may be several positions of a layer, such as those of an attention head.

    Attributes:
        name: The first module, in the network's order, that produces the channels; with the first position where that produces those of several groups.
        width: Channels of the dense network.
        members: Layers, by what they produce and consume.
        tensors: Every dimension that loses positions.
        counts: Whole numbers that go with them.
        normalised: Whether a layer such as LayerNorm takes its mean over the channels: without one of them the others change.
        block: Residual block that all of the channels are inside of; the block is left out where nothing of its groups is kept. Empty where there is none.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    tensors: tuple[TensorAxis, ...] = ()
    counts: tuple[Count, ...] = ()
    normalised: bool = False
    block: str = ""

    @property
    def positions(self) -> int:
        """Positions of the layer that names the group, per channel."""
        module = self.name.partition("[")[0]
        return next((len(m.indices) // self.width for m in self.members if m.module == module and m.side == "out"), 1)

    @property
    def half(self) -> int:
        """Channels that are left without the lower half; at least one."""
        return max(self.width // 2, 1)


def blocks_of(groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    """Return the names of the groups inside of each residual block that may be left out, in the network's order."""
    found: dict[str, tuple[str, ...]] = {}
    for group in groups:
        if group.block:
            found[group.block] = (*found.get(group.block, ()), group.name)
    return found


class WidthPlan(Record):
    """Channels to keep per group; a group without an entry stays whole."""

    widths: Widths = {}


def first_channels(widths: Widths) -> Kept:
    """Keep the first channels of every group: for untrained networks, where only the number matters."""
    return {name: tuple(range(width)) for name, width in widths.items()}
