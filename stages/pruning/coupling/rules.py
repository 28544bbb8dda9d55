"""What every operator of ATen does with the labels of its operands."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.nn import functional

from bonsai.stages.pruning.coupling.labels import FIXED, Factor, varying
from bonsai.stages.pruning.coupling.recorder import Recorder

Factors = list[Factor]
Rule = Callable[[Recorder, Sequence[Any], dict[str, Any], Any], Any]
RULES: dict[str, Rule] = {}
"""By the operator's name without namespace and overload. A rule returns the factors of its output, or a list of them for several outputs."""
MOST_LABELS = 50_000_000
"""Most entries of one factor."""


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


@rule("zeros", "ones", "full", "empty", "rand", "randn", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones",
      "new_full", "new_empty", "empty_strided", "new_empty_strided", "scalar_tensor", "fill", "zero", "fill_", "zero_", "empty_permuted")  # fmt: skip
def _free(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> None:
    return None


@rule("select", "select_copy")
def _select(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    source, dim = args[0], args[1] % args[0].ndim
    return [factor.squeeze(dim) for factor in _whole(at, source, dim)]


@rule("unbind", "unbind_copy")
def _unbind(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Sequence[torch.Tensor]) -> list[Factors]:
    source, dim = args[0], (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % args[0].ndim
    found = [factor.squeeze(dim) for factor in _whole(at, source, dim)]
    return [found for _ in out]


def _whole(at: Recorder, source: torch.Tensor, *axes: int) -> Factors:
    """Return the factors of a tensor, none of which varies along some axes any more."""
    found = []
    for factor in at.factors(source):
        left: Factor | None = factor
        for axis in axes:
            left = at.labels.keep_whole(left, axis) if left is not None else None
        if left is not None:
            found.append(left)
    return found


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
    """Return the labels of a piece. An axis that is cut into equal pieces loses the same positions of each, unless a module knows their sizes."""
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
            at.fix(factor)
    return found


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
            at.fix(factor)
            continue
        pieces = factor.split(sizes, dim)
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
    found = []
    for factor in at.factors(source):
        for place in range(0, len(pads), 2):
            axis = source.ndim - 1 - place // 2
            if factor.shape[axis] > 1 and any(pads[place : place + 2]):
                factor = functional.pad(factor, [0, 0] * (place // 2) + [max(each, 0) for each in pads[place : place + 2]], value=FIXED)
        found.append(factor)
    return found


@rule(
    "mean", "sum", "amax", "amin", "var", "var_mean", "std", "linalg_vector_norm", "max", "min", "argmax", "logsumexp", "nansum", "norm", "prod", "any", "all"
)
def _reduce(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    source = args[0]
    given = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], float | bool | torch.Tensor) else None)
    if isinstance(given, int):
        given = [given]
    dims = sorted({dim % source.ndim for dim in given}) if given else list(range(source.ndim))
    first = out if isinstance(out, torch.Tensor) else out[0]
    found = _whole(at, source, *dims)
    if first.ndim != source.ndim:
        found = [factor.reshape([size for axis, size in enumerate(factor.shape) if axis not in dims]) for factor in found]
    return found if isinstance(out, torch.Tensor) else [found for _ in out]


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", "_safe_softmax", "cumsum", "sort", "glu")
def _along(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % args[0].ndim
    found = _whole(at, args[0], dim)
    return found if isinstance(out, torch.Tensor) else [found for _ in out]


@rule("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
      "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d", "upsample_nearest1d", "upsample_linear1d", "_upsample_bilinear2d_aa",
      "_upsample_bicubic2d_aa", "reflection_pad2d", "replication_pad2d", "reflection_pad1d", "replication_pad1d", "avg_pool1d", "adaptive_avg_pool1d",
      "max_pool1d", "max_pool1d_with_indices", "_adaptive_avg_pool3d", "grid_sampler_2d", "mkldnn_max_pool2d")  # fmt: skip
def _spatial(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: Any) -> Any:
    found = _whole(at, args[0], *range(2, args[0].ndim))
    return found if isinstance(out, torch.Tensor) else [found for _ in out]


@rule("roll", "flip")
def _move(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> Factors:
    dims = args[-1] if len(args) > 1 else kwargs.get("dims", list(range(out.ndim)))
    dims = [dims] if isinstance(dims, int) else dims
    return _whole(at, args[0], *(dim % out.ndim for dim in dims))


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
    for factor in _whole(at, args[0], args[0].ndim - 1, args[0].ndim - 2):
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
        for factor in _whole(at, args[0], args[0].ndim - 1, args[0].ndim - 2)
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
    return [factor.reshape((1,) * (out.ndim - 1) + (-1,)) for factor in _whole(at, args[0], 0)]


@rule("index", "index_select")
def _index(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    source = args[0]
    if isinstance(args[1], int):
        return _whole(at, source, args[1] % source.ndim)
    used = [axis for axis, each in enumerate(args[1]) if each is not None]
    found = _whole(at, source, *used)
    if used != list(range(len(used))):
        return [at.fix(factor) for factor in found if varying(factor)] and []
    return [factor.reshape((1,) * (out.ndim - (source.ndim - len(used))) + tuple(factor.shape[len(used) :])) for factor in found]


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def _layer_norm(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: Any) -> Any:
    source, shape, *affine = args[:4]
    axes = range(source.ndim - len(shape), source.ndim)
    for factor in at.factors(source):
        for axis in axes:
            if factor.shape[axis] > 1:
                at.normal.append((factor, axis))
    first = out if isinstance(out, torch.Tensor) else out[0]
    found = elementwise(at, [source, *affine], first)
    return found if isinstance(out, torch.Tensor) else [found, [], []][: len(out)]


@rule("native_group_norm")
def _group_norm(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: Any) -> Any:
    source, weight, bias, groups = args[0], args[1], args[2], args[6]
    found = []
    for factor in _whole(at, source, *range(2, source.ndim)):
        if factor.shape[1] > 1 and groups == 1:
            at.normal.append((factor, 1))
        elif factor.shape[1] > 1:
            blocks = factor.reshape(factor.shape[0], groups, -1, *factor.shape[2:])
            if blocks.shape[2] > 1:
                at.labels.tie_along(blocks, 2)
        found.append(factor)
    for parameter in (weight, bias):
        _with_vector(at, source, found, parameter)
    return [found, [], []]


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "cudnn_batch_norm",
      "batch_norm", "_batch_norm_impl_index", "_batch_norm_no_update", "_batch_norm_with_update")  # fmt: skip
def _batch_norm(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    source = args[0]
    trains = any(each is True for each in args)
    found = _whole(at, source, 0, *range(2, source.ndim)) if trains else at.factors(source)
    for parameter in [each for each in args[1:5] if isinstance(each, torch.Tensor)]:
        _with_vector(at, source, found, parameter)
    return [found, *([] for _ in out[1:])]


def _with_vector(at: Recorder, source: torch.Tensor, found: Factors, vector: torch.Tensor | None) -> None:
    """Tie a vector of the channels to the axis 1 of a tensor; the channels of one that has no labels stay."""
    if vector is None:
        return
    for own in at.factors(vector):
        along = [factor for factor in found if factor.shape[1] > 1]
        shaped = own.reshape(1, -1, *(1,) * (source.ndim - 2))
        for factor in along:
            at.labels.tie(factor, shaped)
        if not along:
            at.fix(own)
    if not at.factors(vector) and not at.is_free(vector):
        for factor in found:
            at.labels.keep_whole(factor, 1)


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution")
def _convolution(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: torch.Tensor) -> Factors:
    source, weight, bias, _stride, _padding, _dilation, transposed, _output, groups = args[:9]
    read = _vector(at, _whole(at, source, 0, *range(2, source.ndim)), source.shape, 1)
    ins, outs = (0, 1) if transposed else (1, 0)
    kernel = _whole(at, weight, *range(2, weight.ndim))
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


@rule("_weight_norm_interface", "_weight_norm")
def _weight_norm(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: Any) -> Any:
    direction, length = args[:2]
    found = at.factors(direction)
    for own in at.factors(length):
        along = [factor for factor in found if set(varying(own)) & set(varying(factor))]
        for factor in along:
            at.labels.tie(factor, own)
        if not along:
            at.fix(own)
    return found if isinstance(out, torch.Tensor) else [found, []]


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
    passed = [factor for factor in lefts if factor.shape[-1] == 1] + [factor for factor in rights if factor.shape[-2] == 1]
    sides = [[factor for factor in lefts if factor.shape[-1] == 1], [factor for factor in rights if factor.shape[-2] == 1]]
    found = [factor for factor in passed if factor.numel() > 1]
    if batched:
        found = _batch(at, sides, first.shape[0])
    for other in added:
        like = torch.empty(out.shape, device="meta")
        return elementwise_of(at, [(tuple(out.shape), found), (tuple(other.shape), at.factors(other))], like.ndim)
    return found


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


def elementwise_of(at: Recorder, operands: list[tuple[tuple[int, ...], Factors]], rank: int) -> Factors:
    """Do as `elementwise` for operands whose factors are given."""
    made = [at.stand_in(shape, factors) for shape, factors in operands]
    return elementwise(at, made, made[0])
