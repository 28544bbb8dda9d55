"""Operators that take sums, means or statistics along some axes: these lose nothing, but for norms over channels."""

from collections.abc import Sequence
from typing import Any

import torch

from bonsai.stages.pruning.coupling.labels import varying
from bonsai.stages.pruning.coupling.recorder import Recorder
from bonsai.stages.pruning.coupling.rules.registry import Factors, elementwise, rule, whole


@rule("mean", "sum", "amax", "amin", "var", "var_mean", "std", "linalg_vector_norm", "max", "min", "logsumexp", "nansum", "norm", "prod", "any", "all")
def _reduce(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    source = args[0]
    given = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], float | bool | torch.Tensor) else None)
    if isinstance(given, int):
        given = [given]
    dims = sorted({dim % source.ndim for dim in given}) if given else list(range(source.ndim))
    keeps = (out if isinstance(out, torch.Tensor) else out[0]).ndim == source.ndim

    def left() -> Factors:
        found = whole(at, source, *dims)
        return found if keeps else [factor.reshape([size for axis, size in enumerate(factor.shape) if axis not in dims]) for factor in found]

    return left if isinstance(out, torch.Tensor) else [left for _ in out]


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", "_safe_softmax", "cumsum", "sort", "glu")
def _along(at: Recorder, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % args[0].ndim
    found = whole(at, args[0], dim)
    return found if isinstance(out, torch.Tensor) else [found for _ in out]


@rule("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
      "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d", "upsample_nearest1d", "upsample_linear1d", "_upsample_bilinear2d_aa",
      "_upsample_bicubic2d_aa", "reflection_pad2d", "replication_pad2d", "reflection_pad1d", "replication_pad1d", "avg_pool1d", "adaptive_avg_pool1d",
      "max_pool1d", "max_pool1d_with_indices", "_adaptive_avg_pool3d", "grid_sampler_2d", "mkldnn_max_pool2d")  # fmt: skip
def _spatial(at: Recorder, args: Sequence[Any], _: dict[str, Any], out: Any) -> Any:
    found = whole(at, args[0], *range(2, args[0].ndim))
    return found if isinstance(out, torch.Tensor) else [found for _ in out]


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
    for factor in whole(at, source, *range(2, source.ndim)):
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
    found = whole(at, source, 0, *range(2, source.ndim)) if trains else at.factors(source)
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
