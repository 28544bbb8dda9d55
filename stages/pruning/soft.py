"""The reversible phase: channels that are zero for now, while their weights go on learning.

The output of a masked channel is zero in every forward, as if it were gone. Its gradient passes as if it were there
(straight-through, as in dynamic pruning with feedback: Lin et al., arXiv 2006.07253; for filters He et al., arXiv 1808.06866),
so that its score goes on living, and it may return as long as it has not been cut.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stages.pruning.groups import Group, Kept
from stages.pruning.scores import gates, producers


class Masks:
    """Masks on the outputs of a network's BatchNorms, or of its layers where a group has none.

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
            (group.name, module, torch.tensor(rows, device=device), torch.tensor(channels, device=device))
            for group in groups
            for module, rows, channels in (gates(network, group) or producers(network, group))
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
            module.register_forward_hook(lambda _module, _inputs, output, place=(name, rows, channels): self._mask(output, *place))
            for name, module, rows, channels in self._places
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _mask(self, output: torch.Tensor, name: str, rows: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        dropped = torch.zeros(output.shape[1], dtype=output.dtype, device=output.device)
        dropped[rows] = (~self._kept[name][channels]).to(output.dtype)
        return output - (output * dropped.reshape(1, -1, *[1] * (output.ndim - 2))).detach()
