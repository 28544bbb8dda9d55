r"""How much each channel of a group matters, by the criteria of the field.

A score is one number per channel, larger for a channel that matters more. Criteria of weights look at the network as it
is; criteria of batches are gathered from the trunk's own batches (`stages/pruning/statistics.py`). W_c stands for all
weights that produce channel c, over its coupled layers.

| name | score of channel c | source |
|---|---|---|
| magnitude_l2 | \|\|W_c\|\|_2 | Li et al., arXiv 1608.08710, who take the sum of \|w\| |
| bn_scale | sum of \|gamma_c\| | Liu et al., arXiv 1708.06519 |
| fpgm | sum over j of \|\|W_c - W_j\|\|: distance from the geometric median | He et al., arXiv 1811.00250 |
| random | uniform, fixed by the group's name | |
| bn_gradient | mean over batches of \|sum gamma * dL/dgamma + beta * dL/dbeta\|; without such a normalisation see below | Shen et al., arXiv 2110.12007 |
| snip | mean over batches of sum \|w * dL/dw\| | Lee et al., arXiv 1810.02340, by channel |

gamma and beta are those of every normalisation that follows with a scale for each channel: BatchNorm, InstanceNorm, GroupNorm. A group without one that
is trained has \|sum w * dL/dw\| in place of it (Molchanov et al., arXiv 1906.10771, by channel). Where a normalisation without a scale follows, that sum is
zero up to rounding, because the loss does not depend on the scale of the weights: then the score is that of `snip`.
"""

from collections.abc import Callable, Mapping
from zlib import crc32

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.pruning.criteria import Criterion, Normalisation, WeightCriterion
from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.layers import Layer, by_output

ScaledNorm = _NormBase | nn.GroupNorm
"""A normalisation that may have a scale and a shift for each channel."""
Scores = dict[str, torch.Tensor]
"""(width,) float32 by group name."""


def producing_weights(network: nn.Module, group: Group) -> torch.Tensor:
    """Return the weights that produce each channel, (width, P).

    A channel of several positions of a layer has them side by side; a channel that a layer does not produce has zeros.
    """
    columns = []
    for layer, rows, channels in producers(network, group):
        ordered, order = torch.tensor(channels).sort(stable=True)
        place = torch.arange(len(rows)) - torch.searchsorted(ordered, ordered)
        weights = by_output(layer, layer.weight)[rows]
        beside = weights.new_zeros(group.width, int(place.max()) + 1, weights.shape[1])
        beside[ordered, place] = weights[order]
        columns.append(beside.flatten(1))
    return torch.cat(columns, 1)


def producers(network: nn.Module, group: Group) -> list[tuple[Layer, list[int], list[int]]]:
    """Return the layers that produce a group's channels, each with its rows and the channel of each row."""
    return [(module, rows, channels) for module, rows, channels in _positions(network, group) if isinstance(module, Layer)]


def scaled_norms(network: nn.Module, group: Group) -> list[tuple[ScaledNorm, list[int], list[int]]]:
    """Return the normalisations with a scale on a group's channels, each with its positions and the channel of each position."""
    found = _positions(network, group)
    return [(module, rows, channels) for module, rows, channels in found if isinstance(module, ScaledNorm) and module.affine]


def _positions(network: nn.Module, group: Group) -> list[tuple[nn.Module, list[int], list[int]]]:
    return [(network.get_submodule(m.module), list(m.indices), list(m.channels)) for m in group.members if m.side == "out"]


@torch.no_grad()
def weight_scores(network: nn.Module, groups: tuple[Group, ...]) -> dict[WeightCriterion, Scores]:
    """Return the scores of every criterion that needs the weights alone, by criterion and group."""
    found: dict[WeightCriterion, Scores] = {name: {} for name in WEIGHT_CRITERIA}
    for group in groups:
        weights = producing_weights(network, group)
        for name, score in WEIGHT_CRITERIA.items():
            found[name][group.name] = score(network, group, weights)
    return found


def require_scores(network: nn.Module, groups: tuple[Group, ...], criterion: Criterion) -> None:
    """Refuse a criterion that cannot tell the channels of some groups apart.

    Raises:
        ConfigError: ``bn_scale``, and a group has no normalisation with a scale.
    """
    without = [group.name for group in groups if not scaled_norms(network, group)]
    if criterion == "bn_scale" and without:
        raise ConfigError(
            describe(
                "prune.criterion bn_scale scores channels by the scale of their normalisation, which some groups lack",
                given=", ".join(without),
                allowed="a BatchNorm, InstanceNorm or GroupNorm with a scale behind every layer that is pruned",
                fix="choose another criterion, or name these layers in prune.keep",
            )
        )


def _bn_scale(network: nn.Module, group: Group, _: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(group.width)
    for norm, rows, channels in scaled_norms(network, group):
        total.index_add_(0, torch.tensor(channels), norm.weight[rows].abs())
    return total


def _fpgm(_: nn.Module, __: Group, weights: torch.Tensor) -> torch.Tensor:
    return torch.cdist(weights, weights, compute_mode="use_mm_for_euclid_dist").sum(1)


def _random(_: nn.Module, group: Group, __: torch.Tensor) -> torch.Tensor:
    return torch.rand(group.width, generator=torch.Generator().manual_seed(crc32(group.name.encode())))


WEIGHT_CRITERIA: Mapping[WeightCriterion, Callable[[nn.Module, Group, torch.Tensor], torch.Tensor]] = {
    "magnitude_l2": lambda _network, _group, weights: weights.square().sum(1).sqrt(),
    "bn_scale": _bn_scale,
    "fpgm": _fpgm,
    "random": _random,
}
BATCH_CRITERIA = ("bn_gradient", "snip")


def normalise(scores: Mapping[str, torch.Tensor], groups: tuple[Group, ...], how: Normalisation) -> Scores:
    """Make the scores of different groups comparable.

    Args:
        scores: Scores by group.
        groups: The groups, whose structure tells which are isomorphic.
        how: ``none``; ``local``: each group's mean is 1; ``global``: the mean over all channels is 1; ``isomorphic``: the mean
            over the groups of one structure is 1, whatever their widths (Fang et al., arXiv 2407.04616).
    """
    if how == "none":
        return dict(scores)
    members: dict[object, list[str]] = {}
    for group in groups:
        structure = tuple(m.side for m in group.members)
        members.setdefault({"local": group.name, "global": "", "isomorphic": structure}[how], []).append(group.name)
    means = {name: torch.cat([scores[other] for other in names]).mean() for names in members.values() for name in names}
    return {name: vector / means[name].clamp_min(1e-12) for name, vector in scores.items() if name in means}


def best_channels(scores: Mapping[str, torch.Tensor], widths: Widths) -> Kept:
    """Return each group's highest-scored channels in ascending order; of equal scores the first is kept.

    Args:
        scores: (width,) per group.
        widths: Number of channels to keep per group.
    """
    ranked = {name: torch.argsort(scores[name], descending=True, stable=True) for name in widths}
    return {name: tuple(sorted(ranked[name][:width].tolist())) for name, width in widths.items()}
