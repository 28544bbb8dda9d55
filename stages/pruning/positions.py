"""Finds which positions of every tensor a cut keeps. A copy of the network is cut whose values are their own positions."""

import torch
from torch import nn

from bonsai.stages.networks.edits.records import Axis, Indices, KeepChannels, Size
from bonsai.stages.pruning.zeroing import Uncuttable


class Numbered:
    """A network with its values replaced by their positions: whatever removes some of them shows which are left.

    Args:
        network: A copy. It cannot be run any more.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._shapes = {name: value.shape for name, value in _tensors(network).items()}
        self._sizes = _sizes(network)
        for value in _tensors(network).values():
            value.data = torch.arange(value.numel(), dtype=torch.float64, device=value.device).reshape(value.shape)

    def kept(self) -> KeepChannels:
        """Return what was done since.

        Raises:
            Uncuttable: Layers share a parameter.
        """
        found: dict[Axis, Indices] = {}
        for name, value in _tensors(self._network).items():
            if name not in self._shapes:
                raise Uncuttable(f"cannot cut {name}: other layers share it")
            for axis, indices in _kept_of(name, value.detach().cpu().long(), self._shapes[name]).items():
                found[name, axis] = indices
        changed = {name: size for name, size in _sizes(self._network).items() if size != self._sizes[name]}
        return KeepChannels.of(found, changed)


def _kept_of(name: str, positions: torch.Tensor, shape: torch.Size) -> dict[int, Indices]:
    """Return the kept indices of each dimension that has lost some; where nothing is left, the first of each: such a network does not run."""
    whole = torch.arange(shape.numel()).reshape(shape)
    strides, found = whole.stride(), dict[int, Indices]()
    for axis in (axis for axis in range(len(shape)) if positions.shape[axis] != shape[axis]):
        number = positions.shape[axis]
        indices = positions.movedim(axis, 0).reshape(number, -1)[:, 0] // strides[axis] % shape[axis] if positions.numel() else torch.arange(number)
        whole = whole.index_select(axis, indices)
        found[axis] = tuple(indices.tolist())
    assert torch.equal(whole, positions), f"{name} lost more than whole rows and columns"
    return found


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _sizes(network: nn.Module) -> dict[str, Size]:
    """Return the whole numbers, and tuples of them, that modules keep as attributes."""
    attributes = ((f"{name}.{key}".lstrip("."), value) for name, module in network.named_modules() for key, value in vars(module).items())
    return {name: value for name, value in attributes if isinstance(value, int) or (isinstance(value, tuple) and all(isinstance(item, int) for item in value))}
