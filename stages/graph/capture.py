"""The second way to a graph: torch.export's, put back into the network's own modules."""

from collections.abc import Collection

import torch
from torch import fx, nn

from bonsai.stages.graph.program import export_program
from bonsai.stages.graph.rebuilding import Rebuilding
from bonsai.stages.networks.calling import evaluating


def capture(network: nn.Module, image_shape: tuple[int, ...], whole: Collection[nn.Module] = (), idle: Collection[nn.Module] = ()) -> fx.GraphModule:
    """Return the graph of a network for any number of images.

    Args:
        network: Captured in evaluation; its modules are shared, not copied.
        image_shape: (channels, height, width); branches on shapes are taken as these ask for.
        whole: Modules that are called as they are, where they map one tensor to one.
        idle: Those of them that do nothing in evaluation: captured in training, or they would leave no trace.

    Raises:
        Untraceable: Its Python depends on values or on the number of images.
    """
    with evaluating(network, idle), torch.enable_grad():  # so that a no_grad() of the network's own is not lost
        program = export_program(network, image_shape)
    return Rebuilding(network, program, whole).graph_module()
