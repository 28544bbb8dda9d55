"""Compares the attributes outside the state of two networks from the same factory, value by value."""

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory

TORCHS = set(vars(nn.Module())) - {"training"}
"""Attributes that torch itself keeps in a module: parameters, buffers, children, hooks (their keys are numbered across the whole process)."""
CODE = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)
PLAIN = (int, float, complex, str, bytes, set, frozenset)
Seen = set[tuple[int, int]]
_ABSENT = object()


def differing(one: nn.Module, other: nn.Module, seen: Seen | None = None) -> Iterator[str]:
    """Yield the names of attributes, non-persistent buffers and modules that differ between two networks.

    Parameters and buffers that `state_dict` holds are not looked at. An object that is no number, text, array or collection is
    compared by its own attributes.

    Args:
        one: A network.
        other: Another one of the same factory.
        seen: Pairs of objects, by `id`, that are being compared already.
    """
    seen = set() if seen is None else seen
    others = dict(other.named_modules())
    for name, module in one.named_modules():
        twin = others.pop(name, None)
        if twin is None or type(twin).__qualname__ != type(module).__qualname__:
            yield name or type(module).__name__
            continue
        its = _kept(twin)
        for key, value in (its | _kept(module)).items():
            if key not in its or not hasattr(module, key) or not _same(value, its[key], seen):
                yield f"{name}.{key}".lstrip(".")
    yield from others


def _kept(module: nn.Module) -> dict[str, Any]:
    """Return a module's own attributes and its non-persistent buffers."""
    hidden = {name: module._buffers[name] for name in module._non_persistent_buffers_set if name in module._buffers}
    return {key: value for key, value in vars(module).items() if key not in TORCHS} | hidden


def _same(one: Any, other: Any, seen: Seen) -> bool:
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one).__qualname__ != type(other).__qualname__:
        return False
    if isinstance(one, CODE):  # the same function, defined once more within the factory
        return True
    seen.add((id(one), id(other)))
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.detach().nan_to_num(), other.detach().nan_to_num())
    if isinstance(one, np.ndarray | np.generic):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
    if isinstance(one, nn.Module):
        return not any(True for _ in differing(one, other, seen)) and _same(one.state_dict(), other.state_dict(), seen)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key], seen) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same(a, b, seen) for a, b in zip(one, other, strict=True))
    if hasattr(one, "__dict__") and not isinstance(one, PLAIN):
        return _same(vars(one), vars(other), seen)
    try:
        return bool(one == other or one != one)  # NaN is equal to nothing
    except FAILURES as error:  # comparing is somebody else's code too
        blame_memory(error)
        return False
