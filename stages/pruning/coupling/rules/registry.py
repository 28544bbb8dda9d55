"""Rules by operator, and the one that most operators follow: position by position."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bonsai.stages.pruning.coupling.labels import Factor, varying
from bonsai.stages.pruning.coupling.recorder import Recorder

Factors = list[Factor]
Rule = Callable[[Recorder, Sequence[Any], dict[str, Any], Any], Any]
RULES: dict[str, Rule] = {}
"""By the operator's name without namespace and overload. A rule returns the factors of its output, or a list of them for several outputs."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def elementwise(at: Recorder, operands: Sequence[Any], out: torch.Tensor, *, but: int | None = None) -> Factors:
    """Tie the labels of tensors that are combined position by position, along every axis but one."""
    tensors = [each for each in operands if isinstance(each, torch.Tensor) and not at.is_free(each)]
    rank = max([out.ndim, *(each.ndim for each in tensors)])
    shapes = [(1,) * (rank - each.ndim) + tuple(each.shape) for each in tensors]
    every = [[factor.reshape((1,) * (rank - factor.ndim) + tuple(factor.shape)) for factor in at.factors(each)] for each in tensors]
    for place, factors in enumerate(every):
        for number, factor in enumerate(factors):
            found: Factor | None = factor
            for axis in [axis for axis in varying(factor) if axis != but]:
                lacks = any(
                    shape[axis] > 1 and not any(other.shape[axis] > 1 for other in others)
                    for beside, (shape, others) in enumerate(zip(shapes, every, strict=True))
                    if beside != place
                )
                if lacks and found is not None:
                    found = at.labels.keep_whole(found, axis)
            factors[number] = found if found is not None else factor.new_zeros((1,) * rank)
    joined: Factors = []
    for factor in sorted((factor for factors in every for factor in factors if factor.numel() > 1), key=lambda each: -each.numel()):
        axes = set(varying(factor))
        partner = next((other for other in joined if axes & set(varying(other)) and but not in axes), None)
        if but in axes and len(axes) > 1:
            at.fix(factor)
        elif partner is None:
            joined.append(factor)
        elif axes == set(varying(partner)):
            at.labels.tie(factor, partner)
        else:
            at.overlaps.append((partner, factor))
    return joined


def elementwise_of(at: Recorder, operands: list[tuple[tuple[int, ...], Factors]]) -> Factors:
    """Do as `elementwise` for operands whose factors are given."""
    made = [at.stand_in(shape, factors) for shape, factors in operands]
    return elementwise(at, made, made[0])


def whole(at: Recorder, source: torch.Tensor, *axes: int) -> Factors:
    """Return the factors of a tensor, none of which varies along some axes any more."""
    found = []
    for factor in at.factors(source):
        left: Factor | None = factor
        for axis in axes:
            left = at.labels.keep_whole(left, axis) if left is not None else None
        if left is not None:
            found.append(left)
    return found
