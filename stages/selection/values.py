"""Computes the value of each width of a group from the scores of its channels. Selection maximises the sum of these values."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from bonsai.stages.pruning.block_losses import BlockLosses
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.problem import Values
from bonsai.stages.selection.terms import Options

Value = Literal["reciprocal", "sum"]


def values_of(kind: Value, scores: Mapping[str, Sequence[float]], options: Options, operators: Iterable[Operator], losses: BlockLosses | None = None) -> Values:
    """Return the value of every option of every group.

    Args:
        kind: ``sum``: the sum of the kept channels' scores. ``reciprocal``: minus one over the kept channels' share of the scores.
        scores: Scores of the channels that are left, by group.
        options: Widths to choose from; 0 where the group's residual block is left out.
        operators: Operators of the dense network.
        losses: What was measured of the blocks that may be left out; needed where some option is 0 and others are not.
    """
    widths = {group: there for group, some in options.items() if (there := tuple(width for width in some if width))}
    found = values_from_scores(scores, widths) if kind == "sum" else reciprocal_values(scores, widths, operators)
    return _with_blocks(found, options, losses)


def _with_blocks(values: Values, options: Options, losses: BlockLosses | None) -> Values:
    """Return the values, with that of being left out for every group whose block may be.

    The increase of the loss was measured where a block is left out, and where half of each of its groups is. The halves tell how much value a unit of loss
    is. A block that is left out costs the value of its own increase, which its first group bears.
    """
    found = {group: dict(values.get(group, {})) for group in options}
    for group, widths in options.items():
        if 0 in widths:
            found[group][0] = max(values[group].values()) if group in values else 0.0
    if losses is None:
        return found
    for block in losses.blocks:
        if 0 in options.get(block.groups[0], ()):
            found[block.groups[0]][0] -= max(block.loss, 0.0) * worth_of_loss(values, losses.halved)
    return found


def worth_of_loss(values: Values, halved: Mapping[str, float]) -> float:
    """Return the value that goes with a unit of loss.

    Args:
        values: Value of every width of every group.
        halved: Increase of the loss without half of a group's channels, by group.
    """
    lost = [max(table.values()) - table[_half(table)] for group in halved if (table := values.get(group))]
    return sum(lost) / sum(halved[group] for group in halved if group in values)


def _half(widths: Iterable[int]) -> int:
    """Return the width that is nearest to half of the widest."""
    widths = list(widths)
    return min(widths, key=lambda width: (abs(width - max(widths) / 2), width))


def values_from_scores(scores: Mapping[str, Sequence[float]], options: Options) -> Values:
    """Return V_g(c), the sum of the c highest channel scores, for every option of every group."""
    sums = {group: list(accumulate(sorted(vector, reverse=True))) for group, vector in scores.items()}
    return {group: {width: sums[group][width - 1] for width in widths} for group, widths in options.items()}


def reciprocal_values(scores: Mapping[str, Sequence[float]], options: Options, operators: Iterable[Operator]) -> Values:
    """Return V_g(c) = - n_g / (share of the group's score that its c best channels hold), n_g the convolutions and products on the group.

    The loss of a network falls as a power of its width; this is one such power per group. The value of a group falls without limit as its share
    gets small, so a narrow bottleneck cannot be made up for elsewhere. A group that more operators read or write has more weight. Channels that
    earlier cuts removed count with the group's mean score, so that shares still refer to the dense network.
    """
    uses: dict[str, int] = dict.fromkeys(options, 0)
    dense: dict[str, int] = {}
    for operator in operators:
        dense |= dict(operator.full_widths)
        if operator.operator.is_light:
            continue
        written = operator.inputs if operator.operator.one_axis else operator.outputs
        for group, _ in (*operator.inputs, *written):
            if group in uses:
                uses[group] += 1
    kept, found = values_from_scores(scores, options), {}
    for group, widths in options.items():
        left = scores[group]
        whole = max(sum(left) * dense.get(group, len(left)) / len(left), 1e-300)
        found[group] = {width: -max(uses[group], 1) * whole / max(kept[group][width], 1e-9 * whole) for width in widths}
    return found
