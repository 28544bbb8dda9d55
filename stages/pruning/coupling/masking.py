"""What a network computes without some of its channels or blocks, although they are still there: the reference of every cut."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bonsai.stages.networks.edits.records import KeepChannels

DIRECTIONS = ("weight_v", "weight.original1")
"""Weight norm keeps a length and a direction. The direction is not masked: one of zeros would make the weight NaN."""


@contextmanager
def masked(network: nn.Module, edit: KeepChannels) -> Iterator[None]:
    """Set the parameters to zero that an edit would remove, and normalise over what is left, meanwhile.

    Layers with fewer inputs, and layers whose outputs are zero, are the same as layers that are smaller. LayerNorm is not: its mean is taken over the
    channels that are left. A residual block adds nothing where all of its parameters are zero.
    """
    parameters = dict(network.named_parameters())
    gone = [name for name in parameters if edit.drops(name)]
    before = {name: parameters[name].detach().clone() for name in (*gone, *(name for name, _ in edit.by_axis() if name in parameters))}
    left: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for name in gone:
            parameters[name].zero_()
        for (name, axis), indices in edit.by_axis().items():
            if name not in parameters or (axis == 0 and name.endswith(DIRECTIONS)):
                continue
            value: torch.Tensor = parameters[name]
            keep = torch.zeros(value.shape[axis], dtype=torch.bool)
            keep[list(indices)] = True
            value.mul_(keep.reshape([-1 if each == axis else 1 for each in range(value.ndim)]).to(value))
            if value.ndim == 1:
                left[id(value)] = torch.tensor(indices)
    try:
        with _OverTheRest(left):
            yield
    finally:
        with torch.no_grad():
            for name, held in before.items():
                parameters[name].copy_(held)


class _OverTheRest(TorchFunctionMode):
    """Normalises over the positions that are left of a norm's weight."""

    def __init__(self, left: Mapping[int, torch.Tensor]) -> None:
        super().__init__()
        self._left = left

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.layer_norm or func is functional.rms_norm:
            return self._last(func, *args, **kwargs)
        if func is functional.group_norm:
            return self._channels(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _last(self, func: Any, input: torch.Tensor, normalized_shape: Any, weight: torch.Tensor | None = None, *rest: Any, **named: Any) -> torch.Tensor:
        indices = self._left.get(id(weight)) if weight is not None else None
        if indices is None or weight is None:
            return func(input, normalized_shape, weight, *rest, **named)  # type: ignore[no-any-return]
        some = [each[indices] if isinstance(each, torch.Tensor) else each for each in rest]
        named = {key: each[indices] if isinstance(each, torch.Tensor) else each for key, each in named.items()}
        found = func(input[..., indices], (len(indices),), weight[indices], *some, **named)
        return torch.zeros_like(input).index_copy_(-1, indices, found)

    def _channels(
        self, func: Any, input: torch.Tensor, num_groups: int, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None, eps: float = 1e-5
    ) -> torch.Tensor:
        indices = self._left.get(id(weight)) if weight is not None else None
        if indices is None or weight is None or num_groups > 1:
            return func(input, num_groups, weight, bias, eps)  # type: ignore[no-any-return]
        found = func(input[:, indices], 1, weight[indices], bias[indices] if bias is not None else None, eps)
        return torch.zeros_like(input).index_copy_(1, indices, found)
