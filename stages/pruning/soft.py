"""Soft pruning: channels are masked for now, are still scored, and may come back until they are cut.

The next layers see zeros for a masked channel, and no gradient passes back through it, as if it were removed. Only momentum and weight decay still
move its weights. Its score is the derivative of the loss with respect to its mask m, at m = 0: dL/dm = sum x * dL/dx over images and positions, where x
is the channel as the next layers would see it. That is the first-order change of the loss if the channel came back. `bn_gradient` is the same figure
for a channel that is not masked, so the two can be compared directly.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.layers import channel_axis


class Masks:
    """Masks on the inputs of the layers that consume a network's groups, behind the activation.

    Args:
        network: Masked while `enforced`.
        groups: Groups that may be masked.

    Attributes:
        returned: Channels that were masked and came back.
    """

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        self._device = next(network.parameters()).device
        self.returned = 0
        self._kept = {group.name: torch.ones(group.width, dtype=torch.bool, device=self._device) for group in groups}
        self._slopes = {group.name: torch.zeros(group.width, device=self._device) for group in groups}
        self._places = [
            (group.name, network.get_submodule(member.module), self._tensor(member.indices), self._tensor(member.channels))
            for group in groups
            for member in group.members
            if member.side == "in"
        ]

    def set(self, kept: Kept) -> None:
        """Mask every channel that `kept` does not name; a group without an entry is not masked."""
        for name, before in self._kept.items():
            after = torch.ones_like(before) if name not in kept else torch.zeros_like(before)
            after[list(kept.get(name, ()))] = True
            self.returned += int((after & ~before).sum())
            self._kept[name] = after

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Keep the masked channels at zero meanwhile, in training and evaluation."""
        handles = [
            module.register_forward_pre_hook(
                lambda module, inputs, place=(name, positions, channels): (self._mask(inputs[0], channel_axis(module), *place), *inputs[1:])
            )
            for name, module, positions, channels in self._places
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take_slopes(self) -> dict[str, torch.Tensor]:
        """Return |dL/dm| of the last batch by group, (width,), zero for channels that are not masked."""
        found = {name: torch.where(self._kept[name], 0, total.abs()) for name, total in self._slopes.items()}
        for total in self._slopes.values():
            total.zero_()
        return found

    def _mask(self, x: torch.Tensor, axis: int, name: str, positions: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        kept = torch.ones(x.shape[axis], dtype=x.dtype, device=x.device)
        kept[positions] = self._kept[name][channels].to(x.dtype)
        masked = x * kept.reshape([-1 if dimension == axis % x.ndim else 1 for dimension in range(x.ndim)])
        if masked.requires_grad:
            seen = x.detach()

            def add(gradient: torch.Tensor) -> None:
                change = (seen * gradient).movedim(axis, 0).flatten(1).sum(1, dtype=torch.float32)
                self._slopes[name].index_add_(0, channels, change[positions])

            masked.register_hook(add)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return masked

    def _tensor(self, numbers: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(numbers, device=self._device)
