"""What is known of the tensors of a network while it runs once: their labels, and what must still be decided about them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.weak import WeakTensorKeyDictionary

from bonsai.stages.networks.edits.fusing import can_fuse
from bonsai.stages.pruning.coupling.labels import FIXED, Factor, Labels, varying

IMAGES = 2
"""Images that the network runs on."""
FREE = None
"""Instead of factors: a tensor that the network fills with one value, as large as it is needed."""
CONVOLUTION = {"kernel_size", "stride", "padding", "dilation"}
"""Sizes of a convolution that are no numbers of channels; it has as many groups as inputs where it is depthwise."""


class Resized(NamedTuple):
    """Whole numbers that a module keeps, and may compute with.

    Attributes:
        attribute: ``<module>.<attribute>``.
        before: The value in the dense network.
        counts: A factor and an axis by entry: the entry is the number of positions that are left along the axis.
    """

    attribute: str
    before: int | tuple[int, ...]
    counts: tuple[tuple[Factor, int], ...]


class Recorder:
    """The labels of a network's tensors.

    Attributes:
        labels: All labels.
        parameters: Name by parameter or buffer.
        own: Factors of the parameters and buffers that were used, by axis; one of size 1 has none.
        splits: Factors that a reshape has made of one axis: what leaves must leave rectangles.
        overlaps: Factors of combined tensors, one of which varies along more axes.
        normal: Factors that a tensor is normalised over, with the axis.
        sizes: Whole numbers of modules that go with the labels.
        convolutions: Labels that convolutions read and write, by module.
        module: Name of the module that runs.
        fusing: Names of the modules that fuse themselves later, by sizes that they keep.
        unknown: Operators without a rule.
    """

    def __init__(self, network: nn.Module) -> None:
        self.labels = Labels()
        self.parameters = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
        self.modules = dict(network.named_modules())
        self.own: dict[str, dict[int, Factor]] = {}
        self.splits: list[Factor] = []
        self.overlaps: list[tuple[Factor, Factor]] = []
        self.normal: list[tuple[Factor, int]] = []
        self.sizes: list[Resized] = []
        self.convolutions: dict[str, tuple[Factor, Factor]] = {}
        self.module = ""
        self.fusing = {name for name, module in self.modules.items() if can_fuse(module)}
        self.unknown: set[str] = set()
        self._factors: Any = WeakTensorKeyDictionary()

    def factors(self, tensor: torch.Tensor) -> list[Factor]:
        """Return the factors of a tensor; a parameter has new ones when it is first used."""
        name = self.parameters.get(id(tensor))
        if name is not None:
            if name not in self.own:
                axes = [axis for axis, size in enumerate(tensor.shape) if size > 1 and tensor.is_floating_point()]
                self.own[name] = {axis: self.labels.fresh(size if each == axis else 1 for each, size in enumerate(tensor.shape)) for axis in axes}
            return list(self.own[name].values())
        found = self._factors.get(tensor)
        if callable(found):
            found = self._factors[tensor] = found()
        return list(found or [])

    def note(self, tensor: torch.Tensor, factors: list[Factor] | Callable[[], list[Factor]] | None) -> None:
        """Note the factors of a new tensor, or what finds them when the tensor is first read: one that nobody reads ties nothing."""
        if id(tensor) not in self.parameters:
            self._factors[tensor] = factors

    def is_free(self, tensor: torch.Tensor) -> bool:
        """Whether the network fills a tensor with one value."""
        return tensor in self._factors and self._factors[tensor] is FREE

    def stand_in(self, shape: tuple[int, ...], factors: list[Factor]) -> torch.Tensor:
        """Return a tensor of a shape with these factors."""
        made = torch.empty(shape, device="meta")
        self.note(made, factors)
        return made

    def fix(self, factor: Factor) -> None:
        """Let all positions of a factor stay."""
        self.labels.tie(factor, FIXED)

    def resized(self, out: torch.Tensor, factors: list[Factor]) -> None:
        """Note that a module reshapes a tensor: whole numbers that it keeps may be the sizes."""
        for factor in factors:
            for axis in varying(factor):
                first, *others = factor.chunk(IMAGES, axis)
                if not others or not all(torch.equal(first, other) for other in others):  # not the heads of all images in one row
                    self.counted(out.shape[axis], factor, axis)

    def counted(self, size: int, factor: Factor, axis: int) -> None:
        """Note that a module's whole numbers of this value may be the number of positions along an axis."""
        self.sizes += [Resized(name, size, ((factor, axis),)) for name, value in self._attributes() if _is_whole(value) and value == size]

    def attribute_of(self, sizes: Sequence[int]) -> str:
        """Return the module's list or tuple of these sizes, or nothing."""
        listed = ((name, value) for name, value in self._attributes() if isinstance(value, list | tuple) and all(map(_is_whole, value)))
        return next((name for name, value in listed if list(value) == list(sizes)), "")

    def listed(self, attribute: str, pieces: Sequence[tuple[Factor, int]]) -> None:
        """Note the pieces whose sizes an attribute lists."""
        self.sizes.append(Resized(attribute, tuple(piece.shape[axis] for piece, axis in pieces), tuple(pieces)))

    def convolved(self, weight: torch.Tensor, read: Factor, written: Factor, groups: Factor | None) -> None:
        """Note the labels of the channels that a convolution reads and writes, (inputs,) and (outputs,), and of its groups where these leave whole."""
        owner = self.parameters[id(weight)].rpartition(".")[0] if id(weight) in self.parameters else self.module
        self.convolutions[owner] = (read, written)
        self.sizes.append(Resized(f"{owner}.in_channels".lstrip("."), len(read), ((read, 0),)))
        if groups is not None:
            self.sizes.append(Resized(f"{owner}.groups".lstrip("."), len(groups), ((groups, 0),)))
            outer = [name for name in self.fusing if owner.startswith(f"{name}.")]
            self.sizes += [Resized(f"{name}.groups", len(groups), ((groups, 0),)) for name in outer if getattr(self.modules[name], "groups", 0) == len(groups)]

    def called(self, module: str, given: object, made: object) -> None:
        """Note that a module was called that fuses itself later: whole numbers that it keeps are the channels of its input and output.

        A BatchNorm of its own is a branch that becomes an identity kernel, of as many channels as that has.
        """
        if isinstance(self.modules[module], _NormBase):
            module = module.rpartition(".")[0]
        if module not in self.fusing:
            return
        for side, tensor in (("in", given), ("out", made)):
            for factor in self.factors(tensor) if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 else ():
                for attribute, value in self._attributes(module):
                    if isinstance(value, int) and value == factor.shape[1] > 1 and side in _sides_of(attribute):
                        self.sizes.append(Resized(attribute, value, ((factor, 1),)))

    def _attributes(self, module: str | None = None) -> list[tuple[str, Any]]:
        name = self.module if module is None else module
        found = self.modules.get(name)
        return [] if found is None else [(f"{name}.{key}".lstrip("."), value) for key, value in vars(found).items() if not key.startswith("_")]


def _is_whole(value: object) -> bool:
    """Whether an attribute is a whole number: a tensor, which is compared number by number, is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _sides_of(attribute: str) -> tuple[str, ...]:
    """Return whose channels an attribute counts, by its name: `in_chs`, `dim_out`; one such as `dim` counts both, and one of a convolution neither."""
    name = attribute.rpartition(".")[2]
    if name in CONVOLUTION:
        return ()
    words = name.split("_")
    return ("in",) if "in" in words else ("out",) if "out" in words else ("in", "out")
