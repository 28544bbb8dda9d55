"""Whether a graph computes what its network does: with the same images, the same random numbers, and in the same mode."""

import copy

import torch
from torch import nn

from bonsai.stages.graph.randomness import drawn_so_far, seeded

VARIATION, ROUNDING = 1e-3, 1e-5
"""Largest difference, relative to how much the outputs vary between images, and beside that to the largest output (fp32)."""
COUNTED = "num_batches_tracked"


@torch.no_grad()
def follows(found: nn.Module, network: nn.Module, images: torch.Tensor, *, training: bool) -> bool:
    """Whether a graph's output is its network's, and in training the statistics that both keep and the random numbers that both draw.

    Args:
        found: The graph; it and the network are run as copies, since in training BatchNorm's statistics move.
        network: The network that it should compute the same as.
        images: The input, (n, ...) float32.
        training: Whether both are run in training.
    """
    outputs, states, drawn = [], [], []
    for each in (network, found):
        each = copy.deepcopy(each).train(training)
        with seeded(0):
            outputs.append(each(images.clone()))
            drawn.append(drawn_so_far())
        states.append({name: value for name, value in each.named_buffers() if not name.endswith(COUNTED)})
    expected, computed = outputs
    if not is_close(computed, expected) or (training and drawn[0] != drawn[1]):  # a branch that is rarely skipped was not skipped here
        return False
    return all(is_close(value, states[0][name]) for name, value in states[1].items() if name in states[0])


def is_close(found: object, expected: object) -> bool:
    """Whether two outputs are the same but for rounding."""
    if not isinstance(found, torch.Tensor) or not isinstance(expected, torch.Tensor) or found.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    return torch.allclose(found, expected, rtol=0, atol=VARIATION * spread(expected) + ROUNDING * _largest(expected), equal_nan=True)


def spread(outputs: torch.Tensor) -> float:
    """Return how far outputs (n, ...) lie from their mean over the images, at most."""
    return _largest(outputs - outputs.mean(0, keepdim=True)) if outputs.ndim and len(outputs) else 0.0


def _largest(values: torch.Tensor) -> float:
    return float(values.detach().abs().nan_to_num().max()) if values.numel() else 0.0
