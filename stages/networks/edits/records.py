"""The records of edits, told apart by `kind`. They are data alone: torch is not needed to read them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from bonsai.profiles.located_yaml import Record
from bonsai.stages.graph.onnx_graph import Dialect

Indices = tuple[int, ...]
Size = int | tuple[int, ...]
Axis = tuple[str, int]
"""A dimension of a parameter or buffer, by the tensor's name."""


class Positions(Record):
    """Positions that are kept, and where: channels that left together have one entry.

    Attributes:
        indices: Ascending.
        axes: Dimensions that keep them, by the name of the parameter or buffer.
    """

    indices: Indices
    axes: dict[str, tuple[int, ...]]


class KeepChannels(Record):
    """Parameters and buffers keep some of their positions; the others are removed.

    Attributes:
        kept: A dimension that is not named keeps all positions.
        sizes: What modules say of their own sizes afterwards, by ``<module>.<attribute>``: `conv1.out_channels`.
    """

    kind: Literal["keep_channels"] = "keep_channels"
    kept: tuple[Positions, ...] = ()
    sizes: dict[str, Size] = {}

    @classmethod
    def of(cls, by_axis: Mapping[Axis, Indices], sizes: Mapping[str, Size]) -> "KeepChannels":
        """Return the edit that keeps these positions of each dimension."""
        found: dict[Indices, dict[str, tuple[int, ...]]] = {}
        for (tensor, axis), indices in by_axis.items():
            axes = found.setdefault(indices, {})
            axes[tensor] = (*axes.get(tensor, ()), axis)
        return cls(kept=tuple(Positions(indices=indices, axes=axes) for indices, axes in found.items()), sizes=dict(sizes))

    def by_axis(self) -> dict[Axis, Indices]:
        """Return the kept positions of each dimension."""
        return {(tensor, axis): kept.indices for kept in self.kept for tensor, axes in kept.axes.items() for axis in axes}

    def then(self, later: "KeepChannels") -> "KeepChannels":
        """Return the one edit that does what this one and a later one do."""
        before = self.by_axis()
        after = {axis: tuple(before[axis][i] for i in indices) if axis in before else indices for axis, indices in later.by_axis().items()}
        return KeepChannels.of(before | after, self.sizes | later.sizes)


class Quantizers(Record):
    """Layers compute as INT8, with a quantiser on every tensor between them; the scales themselves are among the weights.

    Attributes:
        dialect: The runtime's grid that is simulated.
        weight_bits: 8, or 7 for devices whose 8-bit products saturate.
        kept_float: Names of the layers that are left in float.
    """

    kind: Literal["quantizers"] = "quantizers"
    dialect: Dialect
    weight_bits: int
    kept_float: tuple[str, ...] = ()


class Fuse(Record):
    """Modules with several branches compute as the single layers that do the same in evaluation.

    Attributes:
        modules: Names of the modules, in the order in which their own methods are called.
    """

    kind: Literal["fuse"] = "fuse"
    modules: tuple[str, ...]


Edit = Annotated[KeepChannels | Fuse | Quantizers, Field(discriminator="kind")]
