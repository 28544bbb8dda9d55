"""The second way to a graph: torch.export's, put back into the network's own modules."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx, nn

from stages.graph.program import export_program
from stages.graph.rebuilding import Rebuilding
from stages.graph.symbolic import RANDOM_BRANCHES


def capture(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Return the graph of a network for any number of images.

    Args:
        network: Captured in evaluation, but for what is random in training, which is called as a module; its modules are shared, not copied.
        image_shape: (channels, height, width); branches on shapes are taken as these ask for.

    Raises:
        Untraceable: Its Python depends on values or on the number of images, or a layer's weights are not parameters of one module.
    """
    with _evaluating(network), torch.enable_grad():  # so that a no_grad() of the network's own is not lost
        program = export_program(network, image_shape)
    return Rebuilding(network, program).graph_module()


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
