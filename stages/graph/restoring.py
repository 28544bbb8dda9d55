"""Modules in place of functions: what holds parameters, and what acts differently in training.

torch.fx traces `functional.dropout(x, 0.1, self.training)` with the mode of that moment. The graph that is kept is traced in evaluation; a
second one, traced in training, tells which constants follow the mode.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from bonsai.stages.graph.aten_layers import LAYERS

DROPOUTS: dict[Callable[..., Any], type[nn.Module]] = {
    functional.dropout: nn.Dropout,
    functional.dropout1d: nn.Dropout1d,
    functional.dropout2d: nn.Dropout2d,
    functional.dropout3d: nn.Dropout3d,
    functional.alpha_dropout: nn.AlphaDropout,
    functional.feature_alpha_dropout: nn.FeatureAlphaDropout,
    torch.dropout: nn.Dropout,
    torch.dropout_: nn.Dropout,
    torch.alpha_dropout: nn.AlphaDropout,
    torch.feature_alpha_dropout: nn.FeatureAlphaDropout,
}
"""Functions whose second argument is a probability."""


class Signature(NamedTuple):
    """How a function with parameters is called: the operator of ATen that it stands for, the names of its arguments, and what they are by default."""

    operator: str
    names: tuple[str, ...]
    defaults: dict[str, Any]


_CONVOLVED = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
_NORMALISED = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5}
SIGNATURES: dict[Callable[..., Any], Signature] = {
    torch.conv1d: Signature("conv1d", ("input", "weight", "bias", "stride", "padding", "dilation", "groups"), _CONVOLVED),
    torch.conv2d: Signature("conv2d", ("input", "weight", "bias", "stride", "padding", "dilation", "groups"), _CONVOLVED),
    torch.conv_transpose2d: Signature("conv_transpose2d", ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"), _CONVOLVED),
    functional.linear: Signature("linear", ("input", "weight", "bias"), {"bias": None}),
    functional.batch_norm: Signature("batch_norm", ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"), _NORMALISED),
    torch.batch_norm: Signature("batch_norm", ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"), _NORMALISED),
}


@dataclass(frozen=True)  # a tuple would be looked into as one of the arguments
class Slot:
    """Stands for a tensor among the arguments of a function."""

    position: int


class ByMode(nn.Module):
    """Calls a function with other constants in training than in evaluation.

    Args:
        function: Or the name of a method.
        evaluation: Its arguments in evaluation, positional and by name, with a `Slot` for each tensor.
        training: The same in training.
    """

    def __init__(self, function: Callable[..., Any] | str, evaluation: tuple[Any, Any], training: tuple[Any, Any]) -> None:
        super().__init__()
        self.function, self._constants = function, {False: evaluation, True: training}

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Call the function."""
        args, kwargs = fx.node.map_aggregate(self._constants[self.training], lambda each: tensors[each.position] if isinstance(each, Slot) else each)
        return getattr(args[0], self.function)(*args[1:], **kwargs) if isinstance(self.function, str) else self.function(*args, **kwargs)

    def extra_repr(self) -> str:
        """Name the function."""
        return str(getattr(self.function, "__name__", self.function))


def restore_modules(traced: fx.GraphModule, network: nn.Module, in_training: fx.Graph | None) -> None:
    """Replace functions that use the parameters of one module, or follow its mode, by modules.

    Args:
        traced: Traced in evaluation, with shapes; changed in place.
        network: Network that it was traced from.
        in_training: The graph of the same network in training; None where there is none.
    """
    twins = _twins(traced.graph, in_training)
    for node in list(traced.graph.nodes):
        twin = twins.get(node)
        if node.op not in {"call_function", "call_method"} or node.target in SIGNATURES:
            continue
        follows = twin is not None and _constants(twin) != _constants(node)
        if node.target in DROPOUTS:
            if follows or twin is None:
                kind, source = DROPOUTS[node.target], twin or node
                replace_by_module(traced, node, kind(source.args[1] if len(source.args) > 1 else source.kwargs.get("p", 0.5)))
        elif follows and twin is not None:
            _by_mode(traced, node, twin)
    _restore_layers(traced, network, twins)
    traced.graph.lint()
    traced.recompile()


def replace_by_module(traced: fx.GraphModule, node: fx.Node, module: nn.Module, *, name: str = "", inputs: tuple[fx.Node, ...] = ()) -> fx.Node:
    """Let a module do what a node does; return its node, which is another where it was no module's alone.

    Args:
        traced: Changed in place.
        node: The node.
        module: Called with the node's first input, or with `inputs`.
        name: Of the module in the graph; by default the node's, with the module's class.
        inputs: Arguments that it is called with.
    """
    if node.op == "call_module" and not name and [other.target for other in traced.graph.nodes].count(node.target) == 1:
        traced.set_submodule(str(node.target), module)
        return node
    if not name:
        name = f"{node.name}_{type(module).__name__}"
        traced.add_module(name, module)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, inputs or (node.all_input_nodes[0],))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)
    return new


def _twins(graph: fx.Graph, in_training: fx.Graph | None) -> dict[fx.Node, fx.Node]:
    """Return the node of the second graph for each of the first; empty where the two are not the same but for constants."""
    others = list(in_training.nodes) if in_training is not None else []
    nodes = list(graph.nodes)
    if len(nodes) != len(others):
        return {}
    twins = dict(zip(nodes, others, strict=True))
    same = all((a.op, a.target) == (b.op, b.target) and [twins[source] for source in a.all_input_nodes] == b.all_input_nodes for a, b in twins.items())
    return twins if same else {}


def _constants(node: fx.Node) -> str:
    """Return the arguments of a node with no difference between its inputs, which `_twins` compares."""
    return repr(fx.node.map_arg((node.args, node.kwargs), lambda _: None))


def _by_mode(traced: fx.GraphModule, node: fx.Node, twin: fx.Node) -> None:
    def slots(one: fx.Node) -> tuple[Any, Any]:
        positions = {source: position for position, source in enumerate(one.all_input_nodes)}
        replaced: Any = lambda source: Slot(positions[source])  # noqa: E731  # torch's annotation knows no slots
        found: tuple[Any, Any] = fx.node.map_arg((tuple(one.args), dict(one.kwargs)), replaced)
        return found

    assert callable(node.target) or isinstance(node.target, str)
    replace_by_module(traced, node, ByMode(node.target, slots(node), slots(twin)), inputs=tuple(node.all_input_nodes))


def _restore_layers(traced: fx.GraphModule, network: nn.Module, twins: dict[fx.Node, fx.Node]) -> None:
    """Call a layer of torch's where a function is called with the parameters of one module."""
    made: defaultdict[str, list[tuple[fx.Node, nn.Module, fx.Node]]] = defaultdict(list)
    for node in list(traced.graph.nodes):
        signature = SIGNATURES.get(node.target) if node.op == "call_function" else None
        if signature is None:
            continue
        twin = twins.get(node)
        follows = twin is None or _constants(twin) != _constants(node)
        name = _owner(network, node, signature) if signature.operator != "batch_norm" or follows else ""
        layer = _layer(network.get_submodule(name), node, signature) if name else None
        if layer is not None:
            made[name].append((node, layer, _arguments(node, signature)["input"]))
        elif follows and twin is not None:
            _by_mode(traced, node, twin)
    for name, calls in made.items():
        if len({repr(layer) for _, layer, _ in calls}) == 1 and not _reads_more(traced, name, calls[0][1]):
            _free_inner_modules(traced, name)
            traced.set_submodule(name, calls[0][1])
            for node, layer, source in calls:
                replace_by_module(traced, node, layer, name=name, inputs=(source,))
    traced.graph.eliminate_dead_code()


def _arguments(node: fx.Node, signature: Signature) -> dict[str, Any]:
    return {**signature.defaults, **dict(zip(signature.names, node.args, strict=False)), **node.kwargs}


def _owner(network: nn.Module, node: fx.Node, signature: Signature) -> str:
    """Return the module whose parameters and buffers of these names a function is called with; empty where there is none."""
    owners = set()
    for name, value in _arguments(node, signature).items():
        if name == "input":
            continue
        if isinstance(value, fx.Node):
            full = str(value.target)
            owners.add(full.removesuffix(f".{name}") if value.op == "get_attr" and full.endswith(f".{name}") else "")
        elif isinstance(value, tuple | list) and any(isinstance(each, fx.Node) for each in value):
            return ""
    return owners.pop() if len(owners) == 1 else ""


def _layer(owner: nn.Module, node: fx.Node, signature: Signature) -> nn.Module | None:
    arguments = _arguments(node, signature)
    source = arguments["input"]
    if not isinstance(source, fx.Node) or "tensor_meta" not in source.meta:
        return None
    return LAYERS[signature.operator](owner, {**arguments, "rank": len(source.meta["tensor_meta"].shape)})


def _reads_more(traced: fx.GraphModule, name: str, layer: nn.Module) -> bool:
    """Whether the graph reads what a module holds and the layer that takes its place does not, or calls the module itself."""
    held = {f"{name}.{key}" for key, _ in [*layer.named_parameters(), *layer.named_buffers()]}
    inside = [node for node in traced.graph.nodes if node.op == "get_attr" and str(node.target).startswith(f"{name}.")]
    called = any(node.op == "call_module" and node.target == name for node in traced.graph.nodes)
    modules = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    return called or any(str(node.target) not in held and not any(str(node.target).startswith(f"{module}.") for module in modules) for node in inside)


def _free_inner_modules(traced: fx.GraphModule, name: str) -> None:
    """Give the modules within a layer, as its activation, names outside of it: whoever replaces the layer removes them."""
    for node in traced.graph.nodes:
        target = str(node.target)
        if node.op == "call_module" and target.startswith(f"{name}."):
            node.target = target.replace(".", "_")
            traced.add_module(node.target, traced.get_submodule(target))
