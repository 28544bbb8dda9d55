"""A network as a torch.fx graph with the shape of every value."""

import copy
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.graph.capture import capture
from bonsai.stages.graph.following import follows
from bonsai.stages.graph.modes import askers_of
from bonsai.stages.graph.randomness import drawn_by
from bonsai.stages.graph.restoring import restore_modules
from bonsai.stages.graph.symbolic import has_hooks, trace_symbolically
from bonsai.stages.graph.untraceable import Untraceable, explain
from bonsai.stages.graph.values import annotate
from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.networks.several_outputs import selects_outputs

Shape = tuple[int, ...]
TRAINING = "training"
"""Key of the operations that a graph loses in training."""
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear, nn.MultiheadAttention, nn.RNNBase)


class Whole(NamedTuple):
    """What a graph calls as it is.

    Attributes:
        modules: Modules of the network's own classes.
        idle: Those of them that return their input in evaluation.
        noisy: Names of the modules whose random numbers of training a graph does not draw, since they hold layers.
    """

    modules: tuple[nn.Module, ...]
    idle: tuple[nn.Module, ...]
    noisy: tuple[str, ...]


class Lost(NamedTuple):
    """How a graph differs from its network in training mode.

    Attributes:
        by: Names of the modules whose forward reads `self.training`.
        noise: Whether the difference is random numbers that the graph does not draw.
    """

    by: tuple[str, ...]
    noise: bool


def trace(network: nn.Module, image_shape: Shape) -> fx.GraphModule:
    """Return the graph of a network and annotate its nodes with shapes, for a batch of two images.

    The graph computes what the network computes in evaluation, whatever mode the network is in, and in training wherever that can be: see
    `lost_in_training`. torch.fx's tracer comes first; a network that it cannot follow, or follows wrongly, is captured by torch.export.
    A module that asks `self.training` and has no graph that is right in both modes, and one with hooks, is one node.

    Args:
        network: Its own modules are shared, not copied.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: Neither way leads to a graph that computes what the network does.
    """
    images = torch.randn(3, *image_shape, generator=torch.Generator().manual_seed(0))
    hooked = tuple(module for name, module in network.named_modules() if name and has_hooks(module))
    try:
        traced = _by_fx(network, images, hooked)
        right = _right(traced, network, images, training=True)
    except Untraceable:
        right = False
    lost = None
    if not right:
        traced, lost = _with_whole_modules(network, images, hooked)
    traced.meta[TRAINING] = lost
    with evaluating(traced):
        annotate(traced, images[:2])
    return traced.train(network.training)


def lost_in_training(traced: fx.GraphModule) -> Lost | None:
    """Return what a graph of `trace` does in training otherwise than its network, or None if nothing."""
    lost: Lost | None = traced.meta[TRAINING]
    return lost


def _with_whole_modules(network: nn.Module, images: torch.Tensor, hooked: tuple[nn.Module, ...]) -> tuple[fx.GraphModule, Lost | None]:
    """Return the graph, by either way, that is right in both modes, or the first that is right in evaluation, and what that one loses.

    Raises:
        ConfigError: None is right in evaluation.
    """
    shape = tuple(images.shape[1:])
    try:
        asked = askers_of(network, images)
    except FAILURES as error:  # as torch's old weight_norm, which keeps a tensor that was computed
        blame_memory(error)
        problem, fix = "the network cannot be copied", "use torch.nn.utils.parametrizations, and keep no tensors that were computed as attributes"
        raise ConfigError(describe(problem, given=f"{type(network).__name__}: {explain(error)}", allowed="what copy.deepcopy copies", fix=fix)) from error
    whole = _whole_modules(network, asked, hooked)
    reasons: list[str] = []
    found: list[fx.GraphModule] = []
    for way in ("torch.fx", "torch.export"):
        try:
            traced = _by_fx(network, images, whole.modules) if way == "torch.fx" else _by_export(network, shape, images, whole)
            found.append(traced)
            if _right(traced, network, images, training=True):
                return traced, None
        except Untraceable as error:
            reasons.append(f"{error} ({way})")
    if not found:
        hooks = " and the network itself has hooks, which a graph does not call" if has_hooks(network) else ""
        raise ConfigError(
            describe(
                "the network can be traced neither by torch.fx nor by torch.export",
                given=f"{type(network).__name__}: {'; '.join(reasons)}{hooks}",
                allowed="a forward that may branch on shapes, but not on values, nor on the number of images",
                fix="move such branches out of forward(), or write them with torch.where",
            )
        )
    by = tuple(name or type(network).__name__ for name in asked if not name or name in whole.noisy)
    return found[0], Lost(by or (type(network).__name__,), _draws(network, images, beside=found[0]))


def _by_fx(network: nn.Module, images: torch.Tensor, whole: Collection[nn.Module]) -> fx.GraphModule:
    """Return torch.fx's graph, which is right in evaluation.

    Raises:
        Untraceable: It cannot follow the network, or follows it wrongly.
    """
    try:
        with evaluating(network):
            traced = trace_symbolically(network, whole)
            if selects_outputs(network):
                traced.graph.eliminate_dead_code()
                traced.recompile()
                traced.delete_all_unused_submodules()  # of auxiliary outputs, whose statistics would stand still in training
            annotate(traced, images[:2])
        restore_modules(traced, network, _in_training(network, whole))
        followed = follows(traced, network, images, training=False)
    except FAILURES as error:
        blame_memory(error)
        raise Untraceable(explain(error)) from error
    if not followed:  # `isinstance(x, torch.Tensor)` is false for a placeholder: no error, another graph
        raise Untraceable("its graph computes something else")
    return traced


def _in_training(network: nn.Module, whole: Collection[nn.Module]) -> fx.Graph | None:
    """Return torch.fx's graph in training, of a copy, since counters of batches count while they are traced; None where there is none."""
    names = [name for name, module in network.named_modules() if any(module is each for each in whole)]
    network = copy.deepcopy(network).train()
    try:
        return trace_symbolically(network, [network.get_submodule(name) for name in names]).graph
    except FAILURES as error:
        blame_memory(error)
        return None


def _by_export(network: nn.Module, shape: Shape, images: torch.Tensor, whole: Whole) -> fx.GraphModule:
    """Return the graph that torch.export leads to, which is right in evaluation for any number of images.

    Raises:
        Untraceable: There is none.
    """
    traced = capture(network, shape, whole.modules, whole.idle)
    for batch in (1, 3):
        if not _right(traced, network, images[:batch], training=False):
            raise Untraceable(f"its graph, captured in evaluation for a batch of 2, computes something else for a batch of {batch} in evaluation")
    return traced


def _right(traced: fx.GraphModule, network: nn.Module, images: torch.Tensor, *, training: bool) -> bool:
    """Whether a graph follows its network in a mode.

    Raises:
        Untraceable: One of them does not run in evaluation.
    """
    try:
        return follows(traced, network, images, training=training)
    except FAILURES as error:
        blame_memory(error)
        if training:
            return False
        raise Untraceable(explain(error)) from error


def _whole_modules(network: nn.Module, asked: dict[str, torch.Tensor | None], hooked: tuple[nn.Module, ...]) -> Whole:
    """Return which of the modules that ask for their mode a graph must call as they are; the outcome for one holds for those like it."""
    modules, idle, noisy = list(hooked), list[nn.Module](), list[str]()
    known: dict[str, bool] = {}
    for name, tensor in asked.items():
        module = network.get_submodule(name)
        if not name or any(module is each for each in modules):
            continue
        inner = [other for other in modules if other is not module and any(other is each for each in module.modules())]
        kind = f"{type(module).__qualname__} {module!r} {None if tensor is None else tuple(tensor.shape)} {len(inner)}"
        if kind not in known:
            known[kind] = tensor is not None and _has_graph(module, tensor, inner)
        if known[kind]:
            continue
        holds_layers = any(isinstance(each, LAYERS) for each in module.modules())
        if holds_layers and (tensor is None or _draws(module, tensor)):
            noisy.append(name)
            continue
        modules.append(module)
        if tensor is not None and _is_idle(module, tensor):
            idle.append(module)
    return Whole(tuple(modules), tuple(idle), tuple(noisy))


def _has_graph(module: nn.Module, tensor: torch.Tensor, whole: Collection[nn.Module]) -> bool:
    """Whether a module, taken alone, has a graph that is right in both modes."""
    alone = nn.Sequential(module)
    ways: list[Callable[[], fx.GraphModule]] = [lambda: _by_fx(alone, tensor, whole)]
    if tensor.ndim == 4:
        ways.append(lambda: capture(alone, (tensor.shape[1], tensor.shape[2], tensor.shape[3]), whole))
    for way in ways:
        try:
            traced = way()
            if all(_right(traced, alone, tensor, training=training) for training in (False, True)):
                return True
        except Untraceable:
            continue
    return False


def _draws(module: nn.Module, tensor: torch.Tensor, *, beside: nn.Module | None = None) -> bool:
    """Whether a module draws random numbers in training, and others than a second one."""
    modules = [copy.deepcopy(each).train() for each in (module, beside or nn.Identity())]
    try:
        return drawn_by(modules[0], tensor) != drawn_by(modules[1], tensor)
    except FAILURES as error:
        blame_memory(error)
        return False


@torch.no_grad()
def _is_idle(module: nn.Module, tensor: torch.Tensor) -> bool:
    """Whether a module hands its input back in evaluation; a new BatchNorm, whose output only happens to be the same, does not."""
    given = tensor.clone()
    return copy.deepcopy(module).eval()(given) is given and torch.equal(given, tensor)


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
