"""Which groups the channels of a tensor belong to."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bonsai.stages.pruning.coupling.labels import FIXED, OUTPUT, Factor, Labels
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.groups import Group


class Channels(NamedTuple):
    """Positions along one dimension of a tensor.

    Attributes:
        groups: Groups that they belong to, in the order of their first positions, each with its number of positions per channel.
        fixed: Positions of no group.
    """

    groups: tuple[tuple[str, int], ...]
    fixed: int

    def times(self, positions: int) -> "Channels":
        """Return the channels with so many times the positions each."""
        return Channels(tuple((name, each * positions) for name, each in self.groups), self.fixed * positions)


class _Known(Labels):
    """Labels of groups that were found before: whatever must be one is one already."""

    def tie(self, one: Factor, other: Factor | int) -> None:
        """Tie nothing: what is known of a network holds for its graph."""


class Located:
    """The channels of a network's groups, labelled, for one run of the network.

    Args:
        network: The network.
        groups: Groups of it; positions of other ones count as fixed.

    Attributes:
        at: Follows the labels of the parameters through a run.
    """

    def __init__(self, network: nn.Module, groups: Iterable[Group]) -> None:
        self._groups = tuple(groups)
        self.at = Recorder(network)
        self.at.labels = _Known()
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        labels: dict[str, dict[int, torch.Tensor]] = {
            name: {axis: torch.full((size,), FIXED) for axis, size in enumerate(tensor.shape) if size > 1 and tensor.is_floating_point()}
            for name, tensor in tensors.items()
        }
        owners: list[int] = [-1] * (OUTPUT + 1)
        for number, group in enumerate(self._groups):
            for each in group.tensors:
                labels[each.tensor][each.axis][list(each.indices)] = len(owners) + torch.tensor(each.channels)
            owners += [number] * group.width
        self._owner = np.array(owners)
        for name, axes in labels.items():
            self.at.own[name] = {axis: vector.reshape([-1 if each == axis else 1 for each in range(tensors[name].ndim)]) for axis, vector in axes.items()}

    def along(self, factors: Iterable[Factor], axis: int, size: int) -> Channels:
        """Return which groups the positions along one axis of a tensor belong to.

        Of a group whose channels have different numbers of positions, as in a slice, they count as fixed.

        Args:
            factors: Labels of the tensor.
            axis: The axis.
            size: Its length.
        """
        vector = self._vector(factors, axis)
        if vector is None:
            return Channels((), size)
        owners, found, fixed = self._owner[vector], [], size
        for number in dict.fromkeys(owners[owners >= 0].tolist()):
            group = self._groups[number]
            positions = np.unique(vector[owners == number], return_counts=True)[1]
            if len(positions) == group.width and bool((positions == positions[0]).all()):
                found.append((group.name, int(positions[0])))
                fixed -= group.width * int(positions[0])
        return Channels(tuple(found), fixed)

    def leaves_whole(self, factors: Iterable[Factor], axis: int, blocks: int) -> bool:
        """Return whether what leaves along an axis leaves whole blocks, so many of equal size; False where nothing leaves."""
        vector = self._vector(factors, axis)
        return vector is not None and bool((vector.reshape(blocks, -1) == vector.reshape(blocks, -1)[:, :1]).all())

    def _vector(self, factors: Iterable[Factor], axis: int) -> np.ndarray | None:
        """Return the label of every position along an axis; None where no group's channels vary along it."""
        for factor in factors:
            labels = np.moveaxis(factor.numpy(), axis, 0).reshape(factor.shape[axis], -1)
            says = len(labels) > 1 and not (labels.shape[1] > 1 and bool((labels == labels[:1]).all()))  # else it varies along others alone
            if says and bool((self._owner[labels[:, 0]] >= 0).any()):
                return np.asarray(labels[:, 0])
        return None
