"""A network as a torch.fx graph with the shape of every value."""

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from profiles.errors import ConfigError, describe

MOVES_ONLY = {"flatten", "reshape", "view", "squeeze"}
MOVES_ONLY_MODULES = (nn.Flatten, nn.Dropout, nn.Identity)


def trace(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Trace a network and annotate its nodes with shapes, for a batch of two images.

    Args:
        network: Traced in its present mode; its own modules are shared, not copied.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: torch.fx cannot trace the network.
    """
    try:
        traced = fx.symbolic_trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError) as error:
        raise ConfigError(
            describe(
                "the network cannot be traced by torch.fx",
                given=f"{type(network).__name__}: {error}",
                allowed="a forward without data-dependent control flow",
                fix="move branches on tensor values out of forward()",
            )
        ) from error
    training = network.training
    traced.eval()
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(2, *image_shape))
    traced.train(training)
    return traced


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor; the batch is the first dimension."""
    return tuple(node.meta["tensor_meta"].shape)


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None if it calls none."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node's user if there is exactly one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def is_add(node: fx.Node) -> bool:
    """Whether a node adds two tensors."""
    adds = node.op == "call_function" and getattr(node.target, "__name__", "") in {"add", "iadd"}
    method = node.op == "call_method" and node.target in {"add", "add_"}
    return (adds or method) and all(isinstance(argument, fx.Node) for argument in node.args[:2])


def is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a ReLU."""
    if node.op == "call_function":
        return node.target in {torch.relu, nn.functional.relu}
    if node.op == "call_method":
        return node.target in {"relu", "relu_"}
    return isinstance(module_of(traced, node), nn.ReLU)


def moves_only(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node passes its input's values on unchanged, in evaluation."""
    return getattr(node.target, "__name__", node.target) in MOVES_ONLY or isinstance(module_of(traced, node), MOVES_ONLY_MODULES)


def before_moves(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the node whose values `node` passes on unchanged."""
    while moves_only(traced, node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
