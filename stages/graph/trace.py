"""A network as a torch.fx graph with the shape of every value."""

from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from profiles.errors import ConfigError, describe

RANDOM_BRANCHES = {"StochasticDepth", "DropPath"}
"""Classes, of torchvision and timm, that drop a whole branch in training alone."""


class _Tracer(fx.Tracer):
    """Leaves whole what is random in training: traced into, its present mode would be built in for good."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__name__ in RANDOM_BRANCHES or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Trace a network and annotate its nodes with shapes, for a batch of two images.

    Args:
        network: Traced in its present mode; its own modules are shared, not copied.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: torch.fx cannot trace the network.
    """
    try:
        graph = _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError) as error:
        raise ConfigError(
            describe(
                "the network cannot be traced by torch.fx",
                given=f"{type(network).__name__}: {error}",
                allowed="a forward without data-dependent control flow",
                fix="move branches on tensor values out of forward()",
            )
        ) from error
    traced = fx.GraphModule(network, graph, type(network).__name__)
    _restore_dropout(traced)
    training = network.training
    traced.eval()
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(2, *image_shape))
    traced.train(training)
    return traced


def _restore_dropout(traced: fx.GraphModule) -> None:
    """Call a module instead of `functional.dropout`, which was traced with the mode of that moment."""
    for node in [node for node in traced.graph.nodes if node.target is nn.functional.dropout]:
        replace_by_module(traced, node, nn.Dropout(argument(node, 1, "p", 0.5)))
    traced.recompile()


def replace_by_module(traced: fx.GraphModule, node: fx.Node, module: nn.Module) -> fx.Node:
    """Let `module`, called with the node's first input, do what a node does; return its node, which is another where it was no module's alone."""
    if node.op == "call_module" and [other.target for other in traced.graph.nodes].count(node.target) == 1:
        traced.set_submodule(str(node.target), module)
        return node
    name = f"{node.name}_{type(module).__name__}"
    traced.add_module(name, module)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, (node.all_input_nodes[0],))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)
    return new


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor; the batch is the first dimension."""
    return tuple(node.meta["tensor_meta"].shape)


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None if it calls none."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Return what a function is called with, by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node's user if there is exactly one."""
    return next(iter(node.users)) if len(node.users) == 1 else None
