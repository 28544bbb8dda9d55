"""A network as a torch.fx graph with the shape of every value."""

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from profiles.errors import ConfigError, describe
from stages.graph.capture import capture
from stages.graph.symbolic import trace_symbolically
from stages.graph.untraceable import FAILURES, Untraceable, explain

TOLERANCE = 1e-4
"""Largest difference between a graph and its network, relative to the largest output (fp32)."""


def trace(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Return the graph of a network and annotate its nodes with shapes, for a batch of two images.

    torch.fx's tracer comes first; a network that it cannot follow, or follows wrongly, is captured by torch.export.

    Args:
        network: Traced in its present mode; its own modules are shared, not copied.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: Neither way leads to a graph that computes what the network does.
    """
    try:
        traced = _by_fx(network, image_shape)
    except Untraceable as by_fx:
        try:
            traced = _by_export(network, image_shape)
        except Untraceable as by_export:
            raise ConfigError(
                describe(
                    "the network can be traced neither by torch.fx nor by torch.export",
                    given=f"{type(network).__name__}: {by_fx} (torch.fx); {by_export} (torch.export)",
                    allowed="a forward that may branch on shapes, but not on values, nor on the number of images",
                    fix="move such branches out of forward(), or write them with torch.where",
                )
            ) from by_export
    training = network.training
    traced.eval()
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(2, *image_shape))
    traced.train(training)
    return traced


def _by_fx(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    try:
        traced = trace_symbolically(network)
        followed = _follows(traced, network, image_shape, batch=2)
    except FAILURES as error:
        raise Untraceable(explain(error)) from error
    if not followed:  # `isinstance(x, torch.Tensor)` is false for a placeholder: no error, another graph
        raise Untraceable("its graph computes something else")
    _restore_dropout(traced)
    return traced


def _by_export(network: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    traced = capture(network, image_shape)
    for batch, training in ((1, False), (3, False), (3, True)):
        try:
            followed = _follows(traced, network, image_shape, batch=batch, training=training)
        except FAILURES as error:
            raise Untraceable(explain(error)) from error
        if not followed:
            where = f"for a batch of {batch} in {'training' if training else 'evaluation'}"
            raise Untraceable(f"its graph, captured in evaluation for a batch of 2, computes something else {where}")
    return traced


@torch.no_grad()
def _follows(traced: fx.GraphModule, network: nn.Module, image_shape: tuple[int, int, int], *, batch: int, training: bool | None = None) -> bool:
    """Whether a graph computes what its network does, with the same random numbers; in the present mode, or in that of `training`."""
    images = torch.randn(batch, *image_shape, generator=torch.Generator().manual_seed(0))
    found = []
    for each in copy.deepcopy(nn.ModuleList([network, traced])):  # in training BatchNorm's statistics move
        if training is not None:
            each.train(training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found.append(each(images.clone()))
    expected, computed = found
    if not isinstance(computed, torch.Tensor) or computed.shape != expected.shape:
        return False
    largest = float(expected.abs().max())
    return torch.allclose(computed, expected, rtol=0, atol=TOLERANCE * largest, equal_nan=True)


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
