"""Which groups the channels of a tensor belong to."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from bonsai.stages.pruning.coupling.labels import Factor
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.coupling.units import decide
from bonsai.stages.pruning.groups import Group

NO_GROUP = -1


class Channels(NamedTuple):
    """Positions along one dimension of a tensor.

    Attributes:
        groups: Groups that they belong to, in the order of their first positions, each with its number of positions per channel.
        fixed: Positions of no group.
    """

    groups: tuple[tuple[str, int], ...]
    fixed: int

    def total(self, widths: Mapping[str, int]) -> int:
        """Return the number of positions at the given widths."""
        return self.fixed + sum(widths[name] * positions for name, positions in self.groups)

    def times(self, positions: int) -> "Channels":
        """Return the channels with so many times the positions each."""
        return Channels(tuple((name, each * positions) for name, each in self.groups), self.fixed * positions)


class Located:
    """The groups of a network among the labels of one run of it.

    Args:
        at: What the run recorded.
        groups: Groups of the network; positions of other ones count as fixed.
    """

    def __init__(self, at: Recorder, groups: Iterable[Group]) -> None:
        decide(at)
        self._groups = tuple(groups)
        self._roots = at.labels.roots()
        self._group = np.full(int(self._roots.max()) + 1, NO_GROUP)
        for number, group in enumerate(self._groups):
            for each in group.tensors:
                factor = at.own.get(each.tensor, {}).get(each.axis)
                if factor is not None:
                    self._group[self._roots[factor.reshape(-1).numpy()[list(each.indices)]]] = number

    def along(self, factors: Iterable[Factor], axis: int, size: int) -> Channels:
        """Return which groups the positions along one axis of a tensor belong to.

        Of a group whose channels have different numbers of positions, as in a slice, they count as fixed.

        Args:
            factors: Labels of the tensor.
            axis: The axis.
            size: Its length.
        """
        for factor in factors:
            classes = self._classes(factor, axis)
            if classes is not None:
                return self._counted(classes, size)
        return Channels((), size)

    def blocks(self, factors: Iterable[Factor], axis: int, number: int) -> bool:
        """Return whether blocks of positions, so many along an axis, leave whole; False where no position may leave."""
        found = next((classes for factor in factors if (classes := self._classes(factor, axis)) is not None), None)
        return found is not None and bool((found.reshape(number, -1) == found.reshape(number, -1)[:, :1]).all())

    def _classes(self, factor: Factor, axis: int) -> np.ndarray | None:
        """Return the class of every position along an axis; None where the factor says nothing of it."""
        if factor.shape[axis] == 1:
            return None
        classes = np.moveaxis(self._roots[factor.numpy()], axis, 0).reshape(factor.shape[axis], -1)
        same = bool((classes == classes[:1]).all()) and classes.shape[1] > 1  # then it says something of another axis
        return None if same or bool((self._group[classes[:, 0]] == NO_GROUP).all()) else classes[:, 0]

    def _counted(self, classes: np.ndarray, size: int) -> Channels:
        numbers, found, fixed = self._group[classes], [], size
        for number in dict.fromkeys(numbers[numbers != NO_GROUP].tolist()):
            group = self._groups[number]
            positions = np.unique(classes[numbers == number], return_counts=True)[1]
            if len(positions) == group.width and bool((positions == positions[0]).all()):
                found.append((group.name, int(positions[0])))
                fixed -= group.width * int(positions[0])
        return Channels(tuple(found), fixed)
