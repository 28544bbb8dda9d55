"""Checks the outputs of a network in training, for tasks whose outputs are one tensor."""

import torch

from bonsai.profiles.errors import ConfigError, describe


def require_shape(found: object, shape: tuple[int, ...], *, mode: str, what: str, fix: str) -> torch.Tensor:
    """Return outputs that are a floating-point tensor of a shape.

    Args:
        found: Outputs of a network.
        shape: The shape that the task needs, the number of samples first.
        mode: ``training`` or ``evaluation``.
        what: The outputs that the task needs, in words.
        fix: What to change.

    Raises:
        ConfigError: They are something else.
    """
    if isinstance(found, torch.Tensor) and tuple(found.shape) == shape and found.is_floating_point():
        return found
    shown = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
    raise ConfigError(
        describe(f"the network does not give {what}", given=f"{shown} for {shape[0]} images, in {mode}", allowed=f"{shape} of floating point", fix=fix)
    )


def probabilities(*, given: str, activation: str) -> ConfigError:
    """Return the refusal of a network that gives probabilities.

    Args:
        given: How they were recognised.
        activation: The function that made them.
    """
    allowed, fix = f"what {activation} is computed of: the loss does that itself", f"leave the {activation} out of forward()"
    return ConfigError(describe("the network gives probabilities, not logits", given=given, allowed=allowed, fix=fix))
