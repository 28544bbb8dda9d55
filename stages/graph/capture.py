"""The second way to a graph: torch.export, which runs `forward` on tensors without values, so that Python sees every shape."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

import torch
from torch import fx, nn

from stages.graph.rebuilding import Rebuilding
from stages.graph.symbolic import RANDOM_BRANCHES
from stages.graph.untraceable import BATCH, FAILURES, Untraceable, explain


def capture(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Return the graph of a network for any number of images.

    Args:
        network: Captured in evaluation, but for what is random in training, which is called as a module; its modules are shared, not copied.
        image_shape: (channels, height, width); branches on shapes are taken as these ask for.

    Raises:
        Untraceable: Its Python depends on values or on the number of images, or a layer's weights are not parameters of one module.
    """
    return Rebuilding(network, _export(network, image_shape)).graph_module()


def _export(network: nn.Module, image_shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """Export by running Python; then, where that fails, by reading its bytecode, which alone keeps `len(images)` open."""
    failed = []
    for strict in (False, True):
        try:
            with _quiet(), _evaluating(network), torch.enable_grad():  # so that a no_grad() of the network's own is not lost
                example = torch.zeros(2, *image_shape)  # a batch of 1 would be taken for a constant
                return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
        except FAILURES as error:
            failed.append(error)
    reasons = [explain(error) for error in failed]
    raise Untraceable(reasons[1] if reasons[0].startswith(BATCH) else reasons[0]) from failed[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what torch prints of a failed attempt, whole graphs among it; the reason is in the error."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation meanwhile, but what drops branches into training: an identity would leave no trace."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for module in modes:
        module.training = type(module).__name__ in RANDOM_BRANCHES
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
