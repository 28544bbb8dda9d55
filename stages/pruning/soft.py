"""The reversible phase: channels that are zero for now, while their weights go on learning.

Whoever consumes a masked channel sees zeros in every forward, as if it were gone. Its gradient passes as if it were there
(straight-through, as in dynamic pruning with feedback: Lin et al., arXiv 2006.07253; for filters He et al., arXiv 1808.06866),
so that its score goes on living, and it may return as long as it has not been cut.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stages.pruning.groups import Group, Kept


class Masks:
    """Masks on the inputs of the layers that consume a network's groups; behind the activation, whose gradient at zero is zero.

    Args:
        network: Masked while `enforced`; its weights are never touched.
        groups: What may be masked.

    Attributes:
        returned: Channels that were masked and came back.
    """

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        device = next(network.parameters()).device
        self.returned = 0
        self._kept = {group.name: torch.ones(group.width, dtype=torch.bool, device=device) for group in groups}
        self._places = [
            (
                group.name,
                network.get_submodule(member.module),
                torch.tensor(member.indices, device=device),
                torch.tensor(member.channels, device=device),
            )
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
            module.register_forward_pre_hook(lambda _, inputs, place=(name, positions, channels): (self._mask(inputs[0], *place), *inputs[1:]))
            for name, module, positions, channels in self._places
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _mask(self, x: torch.Tensor, name: str, positions: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        dropped = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
        dropped[positions] = (~self._kept[name][channels]).to(x.dtype)
        return x - (x * dropped.reshape(1, -1, *[1] * (x.ndim - 2))).detach()
