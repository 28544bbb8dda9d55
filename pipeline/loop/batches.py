"""Inputs out of the batches that a caller's loader yields."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import user_code


def inputs_in(batches: Iterable[object], shape: tuple[int, ...], what: str, *, most: int | None = None, samples: int | None = None) -> list[torch.Tensor]:
    """Return the inputs of the first batches, on the CPU.

    Args:
        batches: Tensors or arrays (n, ...), or tuples, lists and dicts whose first one of that shape is the input; a single tensor is one batch.
        shape: Shape of one sample.
        what: Name of the argument, for messages.
        most: Most batches to take.
        samples: Number of samples that are enough; the last batch is shortened to it.

    Raises:
        ConfigError: They cannot be iterated over, one has no such input, there is none, or iterating raises something.
    """
    found: list[torch.Tensor] = []
    given = [batches] if isinstance(batches, torch.Tensor | np.ndarray) else batches
    allowed, fix = "an iterable of batches, such as a DataLoader", f"pass your loader as `{what}`"
    if not isinstance(given, Iterable):
        raise ConfigError(describe(f"{what} cannot be iterated over", given=type(given).__name__, allowed=allowed, fix=fix))
    with user_code(f"{what} raised an error", allowed=allowed, fix="mend the line named above"):
        for batch in given:
            found.append(_input_of(batch, shape, what))
            if len(found) == most or (samples is not None and sum(map(len, found)) >= samples):
                break
    if not found:
        raise ConfigError(
            describe(f"{what} yields no batch", given="nothing", allowed=allowed, fix="pass a loader, or a list of batches, not a used-up iterator")
        )
    if samples is not None:
        found[-1] = found[-1][: samples - sum(map(len, found[:-1]))]
    return found


def _input_of(batch: object, shape: tuple[int, ...], what: str) -> torch.Tensor:
    parts = list(batch.values()) if isinstance(batch, Mapping) else list(batch) if isinstance(batch, tuple | list) else [batch]
    tensors = [torch.as_tensor(part) for part in parts if isinstance(part, torch.Tensor | np.ndarray)]
    for tensor in tensors:
        if tuple(tensor.shape[1:]) == shape and tensor.is_floating_point() and len(tensor):
            return tensor.detach().cpu().float()
    given = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in tensors) or type(batch).__name__
    allowed = f"a floating-point tensor (n, {', '.join(map(str, shape))}), alone or first in a tuple, list or dict"
    raise ConfigError(describe(f"a batch of {what} has no input of the example's shape", given=given, allowed=allowed, fix="yield the network's inputs"))
