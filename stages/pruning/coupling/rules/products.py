"""Convolutions and matrix products: what they read leaves with a column of the weight, what they write with a row."""

from collections.abc import Sequence
from typing import Any

import torch

from bonsai.stages.pruning.coupling.labels import FIXED, Factor, varying
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.coupling.rules.registry import Factors, elementwise_of, rule, whole


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution")
def _convolution(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    source, weight, bias, _stride, _padding, _dilation, transposed, _output, groups = args[:9]
    read = _vector(at, whole(at, source, 0, *range(2, source.ndim)), source.shape, 1)
    ins, outs = (0, 1) if transposed else (1, 0)
    kernel = whole(at, weight, *range(2, weight.ndim))
    rows, columns = (_vector(at, kernel, weight.shape, axis) for axis in (outs, ins))
    if groups == 1:
        at.labels.tie(read, columns)
        written = rows
    elif transposed:
        written = _grouped(at, read.reshape(groups, -1), columns.reshape(groups, -1), rows.reshape(1, -1), transposed=True)
    else:
        written = _grouped(at, read.reshape(groups, -1), columns.reshape(1, -1), rows.reshape(groups, -1), transposed=False)
    if bias is not None:
        at.labels.tie(_vector(at, at.factors(bias), bias.shape, 0), written)
    blocks = read.reshape(groups, -1)
    at.convolved(weight, read, written, blocks[:, 0] if groups > 1 and _whole_groups(blocks) else None)
    return [written.reshape(1, -1, *(1,) * (out.ndim - 2))]


def _grouped(at: Recorder, read: Factor, columns: Factor, rows: Factor, *, transposed: bool) -> Factor:
    """Tie the channels of a grouped convolution: whole groups leave where there are more groups than channels in each, else one channel of every group.

    Args:
        at: The recorder.
        read: (groups, channels of each) of the input.
        columns: Inputs of the weight, (1, channels of each), or (groups, channels of each) where it is transposed.
        rows: Outputs of the weight, (groups, channels of each), or (1, channels of each) where it is transposed.
        transposed: Whether the convolution is.
    """
    groups = len(read)
    if _whole_groups(read):
        at.labels.tie_along(read, 1)
        if transposed:
            at.labels.tie(columns, read)
            at.fix(rows)
            return read[:, :1].expand(groups, rows.shape[1]).reshape(-1)
        at.labels.tie(rows, read[:, :1])
        at.fix(columns)
        return rows.reshape(-1)
    at.labels.tie(at.labels.tie_along(read, 0), columns)
    if transposed:
        return rows.expand(groups, rows.shape[1]).reshape(-1)
    at.labels.tie_along(rows, 0)
    return rows.reshape(-1)


def _whole_groups(read: Factor) -> bool:
    """Whether a convolution of (groups, channels of each) loses whole groups."""
    return read.shape[0] >= read.shape[1]


def _vector(at: Recorder, factors: Factors, shape: Sequence[int], axis: int) -> Factor:
    """Return the labels along one axis of a tensor, (size,); a factor that varies along others too gets one label along these."""
    found = [factor for factor in factors if factor.shape[axis] > 1]
    if not found:
        return torch.full((shape[axis],), FIXED, dtype=torch.int64)
    for factor in found[1:]:
        at.fix(factor)
    left = found[0]
    for other in range(left.ndim):
        left = at.labels.tie_along(left, other) if other != axis and left.shape[other] > 1 else left
    return left.reshape(-1).expand(shape[axis])


@rule("mm", "addmm", "bmm", "baddbmm", "matmul")
def _product(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    added, (first, second) = (args[:1], args[1:3]) if len(args) > 2 and isinstance(args[2], torch.Tensor) else ((), args[:2])
    batched = first.ndim == 3
    lefts = _inner(at, at.factors(first), first.ndim - 1, batched=batched)
    rights = _inner(at, at.factors(second), second.ndim - 2, batched=batched)
    inner = first.shape[-1]
    left = [factor.transpose(-1, -2) for factor in lefts if factor.shape[-1] > 1]
    right = [factor for factor in rights if factor.shape[-2] > 1]
    if inner > 1:
        for factor in left[1:] + right[1:]:
            at.fix(factor)
        if left and right:
            at.labels.tie(left[0], right[0])
        elif left or right:
            at.fix((left or right)[0])
    sides = [[factor for factor in lefts if factor.shape[-1] == 1], [factor for factor in rights if factor.shape[-2] == 1]]
    found = _batch(at, sides, first.shape[0]) if batched else [factor for side in sides for factor in side if factor.numel() > 1]
    return elementwise_of(at, [(tuple(out.shape), found), *((tuple(other.shape), at.factors(other)) for other in added)]) if added else found


def _inner(at: Recorder, factors: Factors, axis: int, *, batched: bool) -> Factors:
    """Return the factors of an operand of a product: a factor that varies along the inner axis and another becomes one of the other (whole heads leave)."""
    found = []
    for factor in factors:
        if factor.shape[axis] > 1 and len(varying(factor)) > 1:
            rest = [each for each in varying(factor) if each not in (axis, 0)] if batched else [each for each in varying(factor) if each != axis]
            left: Factor | None = factor
            for each in rest:
                left = at.labels.keep_whole(left, each) if left is not None else None
            if left is not None and batched and left.shape[0] > 1 and left.shape[axis] > 1:
                left = at.labels.tie_along(left, axis)
            if left is not None:
                found.append(left)
        else:
            found.append(factor)
    return found


def _batch(at: Recorder, sides: list[Factors], size: int) -> Factors:
    """Tie the batch axis of both operands of a batched product."""
    ways = [[factor for factor in side if factor.shape[0] > 1] for side in sides]
    rest = [factor for side in sides for factor in side if factor.shape[0] == 1 and factor.numel() > 1]
    if size == 1:
        return rest
    if ways[0] and ways[1]:
        for one in ways[0]:
            for other in ways[1]:
                at.overlaps.append((one, other)) if one.numel() != other.numel() else at.labels.tie(one, other)
        return [*(way for way in max(ways, key=lambda each: each[0].numel())), *rest]
    left = [at.labels.keep_whole(factor, 0) for factor in ways[0] + ways[1]]
    return [factor for factor in left if factor is not None] + rest
