"""Operators that move positions: reshapes, permutations, pieces, concatenations."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.nn import functional

from bonsai.stages.pruning.coupling.labels import FIXED, Factor, varying
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.coupling.rules.registry import Factors, elementwise, rule, whole

MOST_LABELS = 50_000_000
"""Most entries of one factor."""


@rule("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "_reshape_alias", "_reshape_copy", "view_copy")
def _view(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    source = args[0]
    found = []
    for factor in at.factors(source):
        shape = []
        full = []
        for ins, outs in _aligned(tuple(source.shape), tuple(out.shape)):
            varies = any(factor.shape[axis] > 1 for axis in ins)
            full += [source.shape[axis] if varies else 1 for axis in ins]
            shape += [out.shape[axis] if varies else 1 for axis in outs]
        if prod(full) > MOST_LABELS:
            at.fix(factor)
            continue
        moved = factor.expand(full).reshape(shape)
        axes = varying(moved)
        if len(axes) > len(varying(factor)):
            at.splits.append(moved)
        found.append(moved)
    at.resized(out, found)
    return found


def _aligned(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Return the runs of axes of two shapes that hold the same positions."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = [], []
        left = right = 1
        if i < len(before):
            ins.append(i)
            left = before[i]
            i += 1
        if j < len(after):
            outs.append(j)
            right = after[j]
            j += 1
        while left != right:
            if left < right and i < len(before):
                left *= before[i]
                ins.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                outs.append(j)
                j += 1
            else:
                break
        found.append((ins, outs))
    return found


@rule("permute", "transpose", "t", "numpy_T", "mT", "movedim", "swapaxes")
def _permute(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    source, *rest = args
    order = torch.arange(source.ndim)
    if "dims" in kwargs:
        rest = [kwargs["dims"]]
    if not rest:
        order = order.flip(0) if source.ndim == 2 else order
    elif len(rest) == 1:
        order = torch.tensor([dim % source.ndim for dim in rest[0]])
    else:
        a, b = (dim % source.ndim for dim in rest)
        order[a], order[b] = b, a
    return [factor.permute(order.tolist()) for factor in at.factors(source)]


@rule("expand", "expand_copy", "broadcast_to")
def _expand(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    return [factor.reshape((1,) * (out.ndim - factor.ndim) + tuple(factor.shape)) for factor in at.factors(args[0])]


@rule(
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "lift_fresh",
    "contiguous",
    "dropout",
    "native_dropout",
    "alpha_dropout",
    "to",
    "bernoulli",
    "detach_",
    "lift_fresh_copy",
    "_conj",
    "resolve_conj",
)
def _identity(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: Any) -> Any:
    found = at.factors(args[0])
    return found if isinstance(out, torch.Tensor) else [found for _ in out]


@rule("zeros", "ones", "full", "empty", "rand", "randn", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros",
      "new_ones", "new_full", "new_empty", "empty_strided", "new_empty_strided", "scalar_tensor", "fill", "zero", "empty_permuted")  # fmt: skip
def _free(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> None:
    return None


@rule("select", "select_copy")
def _select(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    source, dim = args[0], args[1] % args[0].ndim
    return [factor.squeeze(dim) for factor in whole(at, source, dim)]


@rule("unbind", "unbind_copy")
def _unbind(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Sequence[torch.Tensor]) -> list[Factors]:
    source, dim = args[0], (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % args[0].ndim
    found = [factor.squeeze(dim) for factor in whole(at, source, dim)]
    return [found for _ in out]


@rule("slice", "slice_copy", "narrow", "narrow_copy")
def _slice(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    source = args[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % source.ndim
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    start = max(start + source.shape[dim], 0) if start < 0 else min(start, source.shape[dim])
    length = out.shape[dim]
    step = args[4] if len(args) > 4 else 1
    if length == source.shape[dim]:
        return at.factors(source)
    return _piece(at, source, dim, start, length, step)


def _piece(at: Recorder, source: torch.Tensor, dim: int, start: int, length: int, step: int = 1) -> Factors:
    """Return the labels of a piece. An axis that is cut into equal pieces loses the same positions of each; one that is cut otherwise loses none."""
    found = []
    for factor in at.factors(source):
        size = factor.shape[dim]
        if size == 1:
            found.append(factor)
            continue
        if step == 1 and length and size % length == 0 and start % length == 0:
            at.labels.tie(factor, _repeated(factor.narrow(dim, 0, length), dim, size // length))
            piece = factor.narrow(dim, start, length)
            at.counted(length, piece, dim)
            at.counted(size, factor, dim)
            found.append(piece)
        else:
            found += _uncut(at, factor, dim)
    return found


def _uncut(at: Recorder, factor: Factor, dim: int) -> Factors:
    """Return a factor for the pieces of an axis that loses nothing; in each head of an attention, say, which leaves whole."""
    left = at.labels.keep_whole(factor, dim)
    return [] if left is None else [left]


def _repeated(factor: Factor, dim: int, times: int) -> Factor:
    return torch.cat([factor] * times, dim)


@rule("split", "split_with_sizes", "split_copy", "split_with_sizes_copy", "chunk", "unsafe_chunk", "unsafe_split", "tensor_split")
def _split(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Sequence[torch.Tensor]) -> list[Factors]:
    source = args[0]
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % source.ndim
    sizes = [piece.shape[dim] for piece in out]
    known = at.attribute_of(sizes)
    found: list[Factors] = [[] for _ in out]
    for factor in at.factors(source):
        if factor.shape[dim] == 1:
            for each in found:
                each.append(factor)
            continue
        if not known and len(set(sizes)) > 1:
            left = _uncut(at, factor, dim)
            for each in found:
                each += left
            continue
        pieces = torch.split(factor, sizes, dim)
        if known:
            at.listed(known, [(piece, dim) for piece in pieces])
        else:
            for piece in pieces[1:]:
                at.labels.tie(pieces[0], piece)
            at.counted(sizes[0], pieces[0], dim)
            at.counted(source.shape[dim], factor, dim)
        for each, piece in zip(found, pieces, strict=True):
            each.append(piece)
    return found


@rule("cat", "concat", "concatenate")
def _cat(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    tensors = [each for each in args[0] if each.ndim == out.ndim]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
    rest = elementwise(at, tensors, out, but=dim)
    parts = []
    for tensor in tensors:
        along = next((factor for factor in at.factors(tensor) if factor.shape[dim] > 1), None)
        size = [1] * out.ndim
        size[dim] = tensor.shape[dim]
        parts.append(torch.full(size, FIXED, dtype=torch.int64) if along is None else along)
    if not any(bool((part != FIXED).any()) for part in parts):
        return [factor for factor in rest if factor.shape[dim] == 1]
    others = [max(part.shape[axis] for part in parts) for axis in range(out.ndim)]
    full = [part.expand([part.shape[axis] if axis == dim else others[axis] for axis in range(out.ndim)]) for part in parts]
    joined = torch.cat(full, dim)
    return [joined, *(factor for factor in rest if factor.shape[dim] == 1 and not set(varying(factor)) & set(varying(joined)))]


@rule("stack")
def _stack(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
    return [factor.unsqueeze(dim) for factor in elementwise(at, args[0], args[0][0])]


@rule("as_strided", "as_strided_")
def _restride(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    found = at.factors(args[0])
    if tuple(args[1]) == tuple(args[0].shape):  # another layout in memory, as a pooling makes it
        return found
    for factor in found:
        at.fix(factor)
    return []


@rule("constant_pad_nd", "pad")
def _pad(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    source, pads = args[0], list(args[1])
    ends = {source.ndim - 1 - place // 2: pads[place : place + 2] for place in range(0, len(pads), 2)}
    found = []
    for factor in at.factors(source):
        if any(factor.shape[axis] > 1 and min(pair) < 0 for axis, pair in ends.items()):  # a crop: it would take others from what is left
            at.fix(factor)
            continue
        widened = [number if factor.shape[axis] > 1 else 0 for axis, pair in ends.items() for number in pair]
        found.append(functional.pad(factor, widened, value=FIXED))
    return found


@rule("flip")
def _flip(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    return whole(at, args[0], *(dim % out.ndim for dim in args[1]))


@rule("roll")
def _roll(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    dims = args[2] if len(args) > 2 else range(out.ndim)  # without any, the tensor is rolled as one row
    return whole(at, args[0], *(dim % out.ndim for dim in dims))


@rule("repeat")
def _repeat(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    times = args[1]
    lead = out.ndim - args[0].ndim
    found = []
    for factor in at.factors(args[0]):
        wide = factor.reshape((1,) * lead + tuple(factor.shape))
        found.append(wide.repeat([number if wide.shape[axis] > 1 else 1 for axis, number in enumerate(times)]))
    return found


@rule("pixel_shuffle")
def _pixel_shuffle(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    found = []
    for factor in whole(at, args[0], args[0].ndim - 1, args[0].ndim - 2):
        axis = args[0].ndim - 3
        if factor.shape[axis] == 1:
            found.append(factor)
        else:
            blocks = factor.reshape(*factor.shape[:axis], -1, args[1] ** 2, 1, 1)
            found.append(at.labels.tie_along(blocks, axis + 1).squeeze(axis + 1))
    return found


@rule("pixel_unshuffle")
def _pixel_unshuffle(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    return [
        factor.repeat_interleave(args[1] ** 2, args[0].ndim - 3) if factor.shape[args[0].ndim - 3] > 1 else factor
        for factor in whole(at, args[0], args[0].ndim - 1, args[0].ndim - 2)
    ]


@rule("channel_shuffle", "native_channel_shuffle")
def _shuffle(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    found = []
    for factor in at.factors(args[0]):
        if factor.shape[1] > 1:
            blocks = factor.reshape(factor.shape[0], args[1], -1, *factor.shape[2:])
            first = at.labels.tie_along(blocks, 1)
            factor = first.expand(blocks.shape).transpose(1, 2).reshape(factor.shape)
        found.append(factor)
    return found


@rule("embedding")
def _embedding(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    return [factor.reshape((1,) * (out.ndim - 1) + (-1,)) for factor in whole(at, args[0], 0)]


@rule("index", "index_select")
def _index(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    source = args[0]
    if isinstance(args[1], int):
        return whole(at, source, args[1] % source.ndim)
    used = [axis for axis, each in enumerate(args[1]) if each is not None]
    found = whole(at, source, *used)
    first, last = used[0], used[-1]
    if last - first >= len(used):  # the new axes come first then
        for factor in found:
            at.fix(factor)
        return []
    new = (1,) * (out.ndim - source.ndim + len(used))
    return [factor.reshape((*factor.shape[:first], *new, *factor.shape[last + 1 :])) for factor in found]
