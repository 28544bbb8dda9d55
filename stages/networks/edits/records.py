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
    """Parameters and buffers keep some of their positions; the others are removed. So are whole residual blocks, whose skip connection remains.

    Attributes:
        kept: A dimension that is not named keeps all positions.
        sizes: What modules say of their own sizes afterwards, by ``<module>.<attribute>``: `conv1.out_channels`.
        dropped: Names of the residual blocks that are left out: they return their input.
    """

    kind: Literal["keep_channels"] = "keep_channels"
    kept: tuple[Positions, ...] = ()
    sizes: dict[str, Size] = {}
    dropped: tuple[str, ...] = ()

    @classmethod
    def of(cls, by_axis: Mapping[Axis, Indices], sizes: Mapping[str, Size], dropped: tuple[str, ...] = ()) -> "KeepChannels":
        """Return the edit that keeps these positions of each dimension, and leaves these blocks out."""
        found: dict[Indices, dict[str, tuple[int, ...]]] = {}
        for (tensor, axis), indices in by_axis.items():
            axes = found.setdefault(indices, {})
            axes[tensor] = (*axes.get(tensor, ()), axis)
        return cls(kept=tuple(Positions(indices=indices, axes=axes) for indices, axes in found.items()), sizes=dict(sizes), dropped=dropped)

    def by_axis(self) -> dict[Axis, Indices]:
        """Return the kept positions of each dimension."""
        return {(tensor, axis): kept.indices for kept in self.kept for tensor, axes in kept.axes.items() for axis in axes}

    def then(self, later: "KeepChannels") -> "KeepChannels":
        """Return the one edit that does what this one and a later one do."""
        before = {(tensor, axis): indices for (tensor, axis), indices in self.by_axis().items() if not later.drops(tensor)}
        after = {axis: tuple(before[axis][i] for i in indices) if axis in before else indices for axis, indices in later.by_axis().items()}
        sizes = {name: size for name, size in self.sizes.items() if not later.drops(name)}
        return KeepChannels.of(before | after, sizes | later.sizes, (*self.dropped, *later.dropped))

    def drops(self, name: str) -> bool:
        """Whether a parameter, buffer or module is part of a block that is left out."""
        return any(name == block or name.startswith(f"{block}.") for block in self.dropped)


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
