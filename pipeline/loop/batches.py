"""Inputs out of the batches that a caller's loader yields."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.packed_inputs import joined_inputs


def inputs_in(batches: Iterable[object], form: Form, what: str, *, most: int | None = None, samples: int | None = None) -> list[torch.Tensor]:
    """Return the inputs of the first batches, on the CPU: of each batch one tensor; several inputs are flattened and joined, (n, total).

    Args:
        batches: Tensors or arrays (n, ...), or tuples, lists and dicts whose first one of that shape is the input. For several inputs tuples or dicts of
            tensors, which may have more behind them, such as labels, or stand first in a tuple. A single batch is taken for a list of one.
        form: What the network takes.
        what: Name of the argument, for messages.
        most: Most batches to take.
        samples: Number of samples that are enough; the last batch is shortened to it.

    Raises:
        ConfigError: They cannot be iterated over, one has no such input, there is none, or iterating raises something.
    """
    found: list[torch.Tensor] = []
    is_batch = isinstance(batches, torch.Tensor | np.ndarray) or (isinstance(batches, tuple | Mapping) and _parts_in(batches, form) is not None)
    given = [batches] if is_batch else batches
    allowed, fix = "an iterable of batches, such as a DataLoader", f"pass your loader as `{what}`"
    if not isinstance(given, Iterable):
        raise ConfigError(describe(f"{what} cannot be iterated over", given=type(given).__name__, allowed=allowed, fix=fix))
    with user_code(f"{what} raised an error", allowed=allowed, fix="mend the line named above"):
        for batch in given:
            found.append(_input_of(batch, form, what))
            if len(found) == most or (samples is not None and sum(map(len, found)) >= samples):
                break
    if not found:
        raise ConfigError(
            describe(f"{what} yields no batch", given="nothing", allowed=allowed, fix="pass a loader, or a list of batches, not a used-up iterator")
        )
    if samples is not None:
        found[-1] = found[-1][: samples - sum(map(len, found[:-1]))]
    return found


def _input_of(batch: object, form: Form, what: str) -> torch.Tensor:
    several = list(batch.values()) if isinstance(batch, Mapping) else list(batch) if isinstance(batch, tuple | list) else [batch]
    for candidate in several if form.kind == "tensor" else [batch, *several]:
        parts = _parts_in(candidate, form)
        if parts is not None:
            return joined_inputs([part.detach().cpu().float() for part in parts])
    tensors = [torch.as_tensor(part) for part in several if isinstance(part, torch.Tensor | np.ndarray)]
    given = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in tensors) or type(batch).__name__
    shapes = [f"(n, {', '.join(map(str, shape))})" for shape in form.shapes]
    if form.kind == "tensor":
        allowed = f"a floating-point tensor {shapes[0]}, alone or first in a tuple, list or dict"
    else:
        listed = shapes if form.kind == "tuple" else [f"{key} {shape}" for key, shape in zip(form.keys, shapes, strict=True)]
        allowed = f"a {form.kind} of the floating-point tensors {', '.join(listed)}, alone or first in a tuple"
    raise ConfigError(describe(f"a batch of {what} has no input of the example's shape", given=given, allowed=allowed, fix="yield the network's inputs"))


def _parts_in(batch: Any, form: Form) -> list[torch.Tensor] | None:
    """Return the inputs that a batch is or begins with; None where it has none."""
    values = form.values_in(batch)
    if values is None or not all(isinstance(value, torch.Tensor | np.ndarray) for value in values):
        return None
    tensors = [torch.as_tensor(value) for value in values]
    fits = all(tuple(each.shape[1:]) == shape and each.is_floating_point() for each, shape in zip(tensors, form.shapes, strict=True))
    return tensors if fits and len({len(each) for each in tensors}) == 1 and len(tensors[0]) else None
