"""How much each channel of a group matters.

The magnitude score of a channel is the L2 norm of all weights that produce it, over its coupled layers. It is
not divided by their number (as in the paper of EPI): within a group that changes nothing, and between groups
the plain norm, summed, was the better value of a width.
"""

import torch
from torch import nn

from stages.pruning.groups import Group


@torch.no_grad()
def magnitude_scores(network: nn.Module, groups: tuple[Group, ...]) -> dict[str, torch.Tensor]:
    """Return for every group the L2 norm of each channel's producing weights, (width,) float32."""
    scores = {}
    for group in groups:
        squares = torch.zeros(group.width)
        for member in (m for m in group.members if m.side == "out"):
            module = network.get_submodule(member.module)
            if isinstance(module, nn.Conv2d | nn.Linear):
                rows = module.weight[list(member.indices)].flatten(1).square().sum(1)
                squares.index_add_(0, torch.tensor(member.channels), rows)
        scores[group.name] = squares.sqrt()
    return scores
