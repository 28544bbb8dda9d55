"""From an exported program back to calls of a network's modules.

torch.export gives a list of ATen calls on bare parameters. Here the calls that one of torch's own modules made become one call of that
module, the network's own and not a copy; a convolution, linear layer or BatchNorm of a class of the user's becomes torch's, with the same
parameters under the same name. So train(), eval() and every name mean what they mean in the network, and whoever reads a traced network
reads this one.
"""

import inspect
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn

from bonsai.stages.graph.aten_layers import LAYERS, Builder, arguments_of, name_of
from bonsai.stages.graph.symbolic import is_leaf
from bonsai.stages.graph.untraceable import Untraceable

STACK = "nn_module_stack"
"""Key of the modules that a node is computed in, outermost first."""
CHECKS = ("_assert", "sym_constrain")
"""Prefixes of operators that only check assumptions of the capture."""


class Rebuilding:
    """An exported program on its way back to calls of modules.

    Args:
        network: Whose modules are called.
        program: The exported program of it.
        whole: Modules of the network's own classes that are called as they are.
    """

    def __init__(self, network: nn.Module, program: torch.export.ExportedProgram, whole: Collection[nn.Module] = ()) -> None:
        signature = program.graph_signature
        self._network, self._program, self._whole = network, program, whole
        self._names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        self._outputs = signature.user_outputs
        self._graph = fx.Graph()
        self._made: dict[fx.Node, fx.Node] = {}
        self._root: dict[str, Any] = {}
        self._layers: set[str] = set()  # names of modules that took the place of the network's
        self._device: fx.Node | None = None
        self._calls = self._calls_of_leaves()
        self._ends = {nodes[-1]: (name, source) for name, source, nodes in self._calls}

    def graph_module(self) -> fx.GraphModule:
        """Return the graph, of the network's own modules and parameters."""
        inside = {node for _, _, nodes in self._calls for node in nodes}
        for node in self._program.graph.nodes:
            if node in self._ends:
                name, source = self._ends[node]
                self._made[node] = self._call(name, self._network.get_submodule(name), source)
            elif node not in inside:
                self._rebuild(node)
            if node in self._made:  # by name, as torch.fx itself notes it
                self._made[node].meta[STACK] = {name: (name, kind) for name, kind in (node.meta.get(STACK) or {}).values()}
        self._free_inner_modules()
        made = fx.GraphModule(self._root, self._graph, type(self._network).__name__)
        made.graph.eliminate_dead_code()
        made.recompile()
        return made.train(self._network.training)

    def _free_inner_modules(self) -> None:
        """Give modules within a layer, as a class of a convolution with its BatchNorm has them, names outside of it: whoever replaces it removes them.

        Raises:
            Untraceable: There is another layer within, whose name recipes use.
        """
        for node in self._graph.nodes:
            name = str(node.target)
            if node.op == "call_module" and any(name.startswith(f"{layer}.") for layer in self._layers):
                module = self._network.get_submodule(name)
                if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    raise Untraceable(f"layer {name} is part of another")
                node.target = name.replace(".", "_")
                self._root.setdefault(node.target, self._root.pop(name, module))

    def _calls_of_leaves(self) -> list[tuple[str, fx.Node, list[fx.Node]]]:
        """Return every call of a leaf that maps one tensor to one: its name, what it reads, and its nodes up to the one that is read."""
        nodes_of: defaultdict[tuple[str, str], list[fx.Node]] = defaultdict(list)
        for node in self._program.graph.nodes:
            for key, (name, _) in (node.meta.get(STACK) or {}).items():
                module = self._submodule(name)
                if node.op == "call_function" and module is not None and is_leaf(module, name, self._whole):
                    nodes_of[key, name].append(node)
                    break
        found = []
        for (_, name), nodes in nodes_of.items():
            sources = list(dict.fromkeys(source for node in nodes for source in node.all_input_nodes if source not in nodes and self._is_activation(source)))
            ends = [node for node in nodes if any(user not in nodes for user in node.users)]
            if len(sources) == len(ends) == 1 and _takes_one(self._network.get_submodule(name)):
                found.append((name, sources[0], [node for node in nodes if node is not ends[0]] + ends))
        return found

    def _submodule(self, name: str) -> nn.Module | None:
        try:
            return self._network.get_submodule(name) if name else None
        except AttributeError:  # what torch itself puts on the stack
            return None

    def _is_activation(self, node: fx.Node) -> bool:
        return node.name not in self._names and isinstance(node.meta.get("val"), torch.Tensor)

    def _rebuild(self, node: fx.Node) -> None:
        """Append what stands for a node that no leaf made."""
        if node.op == "placeholder":
            if node.name not in self._names:
                self._made[node] = self._graph.placeholder(node.name)
        elif node.op == "output":
            results = [source for source in node.all_input_nodes if source.name in self._outputs]
            if len(self._outputs) != 1 or len(results) != 1:
                raise Untraceable(f"it returns {len(self._outputs)} values")
            self._graph.output(self._made[results[0]])
        elif node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
            raise Untraceable(f"it holds {node.target}, a region of its own, as of torch.no_grad() or torch.cond")
        elif not name_of(node).startswith(CHECKS):
            build = LAYERS.get(name_of(node))
            self._made[node] = self._function(node) if build is None else self._layer(node, build)

    def _function(self, node: fx.Node) -> fx.Node:
        """Append the call of an operator; a tensor that it makes is made where the images are."""
        assert callable(node.target)
        arguments = fx.node.map_arg(node.args, self._value)
        options = dict(fx.node.map_arg(node.kwargs, self._value))
        if options.get("device") is not None:
            options["device"] = self._images_device()
        if name_of(node) == "sym_size":
            return self._graph.call_method("size", arguments)
        return self._graph.create_node("call_function", node.target, arguments, options, name=node.name)

    def _layer(self, node: fx.Node, build: Builder) -> fx.Node:
        """Append the call of a module of torch's that does what a function does with parameters of the network.

        It stays a function where its weights are computed, are not all of one module, or are used in another way too.
        """
        arguments = arguments_of(node)
        owners = {self._owner(source, name) for name, source in arguments.items() if name != "input" and isinstance(source, fx.Node)}
        if len(owners) > 1 or "" in owners:
            return self._function(node)
        name = owners.pop() if owners else f"{node.name}_{name_of(node)}"
        module = build(self._submodule(name), {**arguments, "rank": arguments["input"].meta["val"].dim()})
        if module is None or repr(self._root.get(name, module)) != repr(module):
            return self._function(node)
        self._layers.add(name)
        return self._call(name, module, arguments["input"])

    def _owner(self, source: fx.Node, name: str) -> str:
        """Return the module that has this as its parameter or buffer `name`; empty where none has."""
        full = self._names.get(source.name, "")
        return full.removesuffix(f".{name}") if full.endswith(f".{name}") else ""

    def _call(self, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
        """Append the call of a module under its name.

        Raises:
            Untraceable: Another module has that name: a layer's parameters are used in two ways.
        """
        if repr(self._root.setdefault(name, module)) != repr(module):
            raise Untraceable(f"the parameters of {name} are used in two ways")
        return self._graph.call_module(name, (self._value(source),))

    def _value(self, node: fx.Node) -> fx.Node:
        """Return what stands for a node; a parameter is fetched when it is first used."""
        if node not in self._made:
            name = self._names[node.name]
            tensor = self._program.constants.get(name)
            self._root[name] = _attribute(self._network, name) if tensor is None else tensor
            self._made[node] = self._graph.get_attr(name)
        return self._made[node]

    def _images_device(self) -> fx.Node:
        if self._device is None:
            images = next(node for node in self._graph.nodes if node.op == "placeholder")
            self._device = self._graph.call_function(getattr, (images, "device"))
        return self._device


def _attribute(network: nn.Module, name: str) -> Any:
    owner, _, attribute = name.rpartition(".")
    return getattr(network.get_submodule(owner), attribute)


def _takes_one(module: nn.Module) -> bool:
    """Whether a module's forward needs one argument."""
    parameters = inspect.signature(module.forward).parameters.values()
    return sum(p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD} for p in parameters) == 1
