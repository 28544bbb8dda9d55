"""Makes groups of the labels of a network: classes of positions that leave together, alike in the tensors that they run through."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bonsai.stages.pruning.coupling.labels import FIXED, OUTPUT, Factor, varying
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.groups import Count, Group, Member, TensorAxis
from bonsai.stages.pruning.layers import Layer

Place = tuple[str, int]
"""A parameter or buffer, and a dimension of it."""


def groups_of(network: nn.Module, at: Recorder) -> tuple[Group, ...]:
    """Return the groups of a network whose labels are known, in the network's order."""
    _decide(at)
    found = _Classes(network, at)
    alike: dict[tuple[tuple[Place, int], ...], list[int]] = defaultdict(list)
    for unit, places in found.tensors.items():
        if found.producers(unit):
            alike[tuple(sorted((place, len(indices)) for place, indices in places.items()))].append(unit)
    by_layer: dict[str, list[list[int]]] = defaultdict(list)
    for units in alike.values():
        first = found.producers(units[0])[0]
        by_layer[first].append(sorted(units, key=lambda unit: found.members[unit][first, "out"]))
    groups = []
    for name in sorted(by_layer, key=lambda each: found.order[each]):
        for units in sorted(by_layer[name], key=lambda each: found.members[each[0]][name, "out"]):
            groups.append(found.group(name if len(by_layer[name]) == 1 else f"{name}[{found.members[units[0]][name, 'out'][0]}]", units))
    return tuple(groups)


def layers_that_stay(network: nn.Module, at: Recorder) -> dict[str, str]:
    """Return the layers some of whose channels must stay although the network does not give them out, each with the reason."""
    _decide(at)
    roots, found = at.labels.roots(), {}
    reason = "its channels go with some that must stay: the network reduces, indexes, pads or compares them"
    if at.unknown:
        reason = f"its channels go with some that must stay: the network has {', '.join(sorted(at.unknown))}, which cannot be followed"
    for name, module in network.named_modules():
        factor = at.own.get(f"{name}.weight".lstrip("."), {}).get(_sides(module)[0])
        if isinstance(module, Layer) and factor is not None and bool((roots[factor.numpy()] == roots[FIXED]).any()):
            found[name] = reason
    return found


class _Classes:
    """The classes of a network's labels that may leave, and where they are found.

    Attributes:
        tensors: Positions in parameters and buffers, by class and place.
        members: Positions in the inputs and outputs of layers, by class, and by layer and side.
        order: Position of every module in the network.
    """

    def __init__(self, network: nn.Module, at: Recorder) -> None:
        self._modules = dict(network.named_modules())
        self.order = {name: number for number, name in enumerate(self._modules)}
        self.tensors: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.members: dict[int, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
        self._counts: dict[int, dict[tuple[str, int | None], int]] = defaultdict(lambda: defaultdict(int))
        roots = at.labels.roots()
        stay = {int(roots[FIXED]), int(roots[OUTPUT])}
        for tensor, factors in at.own.items():
            for axis, factor in factors.items():
                for index, unit in enumerate(roots[factor.reshape(-1).numpy()].tolist()):
                    if unit not in stay:
                        self.tensors[unit][tensor, axis].append(index)
        for unit, places in self.tensors.items():
            self.members[unit] |= {side: indices for place, indices in places.items() if (side := self._side(place)) is not None}
        for layer, labels in at.convolutions.items():
            self._add_convolution(layer, labels, roots)
        for resized in at.sizes:
            for entry, (factor, axis) in enumerate(resized.counts):
                self._add_count((resized.attribute, entry if isinstance(resized.before, tuple) else None), factor, axis, roots)
        self._normal = _normalised(at, roots)

    def _add_convolution(self, name: str, labels: tuple[Factor, Factor], roots: np.ndarray) -> None:
        """Add a convolution's channels: not what its weight holds of them where it is grouped. A depthwise one counts once."""
        module = self._modules[name]
        for side, label in zip(("in", "out"), labels, strict=True):
            if isinstance(module, _ConvNd) and (side == "out" or not module.groups == module.in_channels > 1):
                for index, unit in enumerate(roots[label.numpy()].tolist()):
                    self.members[unit][name, side].append(index)

    def _add_count(self, name: tuple[str, int | None], factor: Factor, axis: int, roots: np.ndarray) -> None:
        classes = np.moveaxis(roots[factor.numpy()], axis, 0).reshape(factor.shape[axis], -1)
        if bool((classes == classes[:1]).all()):  # nothing leaves along this axis alone
            return
        found: dict[int, int] = defaultdict(int)
        for unit, whole in zip(classes[:, 0].tolist(), (classes == classes[:, :1]).all(1).tolist(), strict=True):
            found[unit] += whole
        for unit, number in found.items():
            self._counts[unit][name] = max(number, self._counts[unit][name])

    def producers(self, unit: int) -> list[str]:
        """Return the layers that produce the positions of a class, in the network's order."""
        found = [name for name, side in self.members[unit] if side == "out" and isinstance(self._modules[name], Layer)]
        return sorted(found, key=lambda name: self.order[name])

    def group(self, name: str, units: list[int]) -> Group:
        """Return the group of these classes, numbered in this order."""
        axes: dict[Place, list[tuple[int, int]]] = defaultdict(list)
        sides: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        counts: dict[tuple[str, int | None], list[int]] = defaultdict(list)
        for channel, unit in enumerate(units):
            for place, indices in self.tensors[unit].items():
                axes[place] += [(index, channel) for index in indices]
            for side, indices in self.members[unit].items():
                sides[side] += [(index, channel) for index in indices]
            for count, number in self._counts[unit].items():
                counts[count] += [channel] * number
        return Group(
            name=name,
            width=len(units),
            members=tuple(
                Member(module=module, side=side, **_split(sides[module, side]))
                for module, side in sorted(sides, key=lambda each: (self.order[each[0]], each[1]))
            ),
            tensors=tuple(TensorAxis(tensor=tensor, axis=axis, **_split(pairs)) for (tensor, axis), pairs in sorted(axes.items())),
            counts=tuple(Count(attribute=attribute, entry=entry, channels=tuple(channels)) for (attribute, entry), channels in counts.items()),
            normalised=not self._normal.isdisjoint(units),
        )

    def _side(self, place: Place) -> tuple[str, str] | None:
        """Return which side of which module a dimension of a weight is, other than a convolution's."""
        name, _, attribute = place[0].rpartition(".")
        module = self._modules[name]
        if attribute != "weight" or isinstance(module, _ConvNd):
            return None
        return name, "in" if isinstance(module, Layer) and place[1] != _sides(module)[0] else "out"


def _split(pairs: list[tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Return positions, ascending, and the channel of each."""
    ordered = sorted(pairs)
    return {"indices": tuple(index for index, _ in ordered), "channels": tuple(channel for _, channel in ordered)}


def _decide(at: Recorder) -> None:
    """Tie what was left open: combined tensors first, then what a reshape has made of one axis."""
    labels, roots = at.labels, at.labels.roots()
    for wide, narrow in at.overlaps:
        if _constant(roots[wide.numpy()], varying(narrow)):
            labels.tie(narrow, FIXED)
        else:
            labels.tie(wide, narrow)
    while _square(at):
        pass


def _square(at: Recorder) -> bool:
    """Tie along the shorter axis what a reshape has made of one axis and what would not leave in rectangles; return whether there was any."""
    roots, found = at.labels.roots(), False
    for factor in at.splits:
        loose = [axis for axis in varying(factor) if not _constant(roots[factor.numpy()], [axis])]
        if len(loose) > 1:
            at.labels.tie_along(factor, min(loose, key=lambda axis: factor.shape[axis]))
            found = True
    return found


def _constant(classes: np.ndarray, axes: Iterable[int]) -> bool:
    return all(bool((classes == np.take(classes, [0], axis)).all()) for axis in axes)


def _normalised(at: Recorder, roots: np.ndarray) -> set[int]:
    """Return the classes that some normalisation loses in part."""
    found: set[int] = set()
    for factor, axis in at.normal:
        classes = roots[factor.numpy()]
        if not _constant(classes, [axis]):
            found |= set(np.unique(classes).tolist())
    return found


def _sides(module: nn.Module) -> tuple[int, int]:
    """Return the dimensions of a layer's weight that hold its outputs and its inputs."""
    return (1, 0) if isinstance(module, _ConvTransposeNd) else (0, 1)
