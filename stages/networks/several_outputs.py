"""Networks that give several outputs: those that the task uses become one tensor, and the others are auxiliary.

So everything that calls a network, traces it or follows its channels sees one output. A network's forward may return a dict, a tuple, or something
else in training than in evaluation.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import nn

from bonsai.profiles.errors import ConfigError, describe

SELECTS = "_selects_outputs"
"""Attribute of the class of a network that returns only some of its outputs: their names."""
_auxiliary: ContextVar[list[torch.Tensor] | None] = ContextVar("auxiliary", default=None)
_as_they_are: ContextVar[bool] = ContextVar("as_they_are", default=False)


def select_outputs(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """Let a network return only its outputs of these names, flattened and joined (n, total) if there are several; it is changed in place.

    Its class is replaced by one of the same name, so that names of layers and parameters stay, and every copy does the same.

    Args:
        network: Returns a dict of tensors, a tuple of some, or one tensor.
        names: Keys of the dict, fields of a named tuple, or places in a tuple, counted from 0. A single tensor is taken for the only one.
    """
    kind = type(network)
    own: Any = kind.forward

    @wraps(own)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = own(self, *args, **kwargs)
        return found if _as_they_are.get() else _selected(found, names)

    body = {SELECTS: tuple(names), "forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    network.__class__ = type(kind.__name__, (kind,), body)
    return network


def selects_outputs(network: nn.Module) -> bool:
    """Whether a network is one of `select_outputs`, and may compute what it does not return."""
    return bool(selected_outputs(network))


def selected_outputs(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the outputs that a network of `select_outputs` returns; none for any other."""
    return getattr(type(network), SELECTS, ())


@contextmanager
def auxiliary_outputs() -> Iterator[list[torch.Tensor]]:
    """Collect meanwhile the outputs that the task does not use."""
    found: list[torch.Tensor] = []
    token = _auxiliary.set(found)
    try:
        yield found
    finally:
        _auxiliary.reset(token)


@contextmanager
def outputs_as_they_are() -> Iterator[None]:
    """Let networks return all their outputs meanwhile, as their own code does: so channels of auxiliary layers are seen too."""
    token = _as_they_are.set(True)
    try:
        yield
    finally:
        _as_they_are.reset(token)


def named_outputs(found: object) -> dict[str, Any] | None:
    """Return several outputs by name; None for anything else."""
    if isinstance(found, Mapping):
        return {str(name): value for name, value in found.items() if value is not None}
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        return {name: value for name, value in found._asdict().items() if value is not None}
    return {str(place): value for place, value in enumerate(found)} if isinstance(found, tuple | list) else None


def _selected(found: Any, names: Sequence[str]) -> Any:
    named = named_outputs(found)
    if named is None:
        if len(names) == 1:
            return found
        problem, fix = "the network gives a single output, and model.outputs names several", "let model.outputs name one, or forward() return a dict"
        raise ConfigError(describe(problem, given=", ".join(names), allowed="one name", fix=fix))
    missing = [name for name in names if name not in named]
    if missing:
        problem, fix = "model.outputs names an output that the network does not give", "name the outputs that the task uses, in its order"
        raise ConfigError(describe(problem, given=", ".join(missing), allowed=list(named), fix=fix))
    collected = _auxiliary.get()
    if collected is not None:
        collected.extend(value for name, value in named.items() if name not in names and isinstance(value, torch.Tensor))
    used = [named[name] for name in names]
    return used[0] if len(used) == 1 else torch.cat([output.flatten(1) for output in used], 1)
