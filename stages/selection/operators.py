"""The operators of a network as the runtime fuses them, with the groups that their channels belong to."""

import math
from collections.abc import Collection, Iterable

import torch
from torch import fx, nn

from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.graph.kinds import is_tensor
from bonsai.stages.graph.products import BATCH, Product, record_products
from bonsai.stages.graph.trace import module_of, shape_of, trace
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.pruning.groups import Group
from bonsai.stages.selection.classes import IN_INT8, Classified, classify, epilogue_of, light_class
from bonsai.stages.selection.flows import Flow, passed_on, size_of
from bonsai.stages.selection.operator_records import Operator, Unseen


def list_operators(network: nn.Module, groups: Iterable[Group], image_shape: tuple[int, ...]) -> tuple[Operator, ...]:
    """Return the operators of a dense network, in order of execution."""
    return read_operators(network, groups, image_shape)[0]


def read_operators(network: nn.Module, groups: Iterable[Group], image_shape: tuple[int, ...]) -> tuple[tuple[Operator, ...], tuple[Unseen, ...]]:
    """Return the operators of a dense network, in order of execution, and its matrix products that are no such operator.

    Operators that do not depend on the image are left out, because an export computes them once.
    """
    reader = _Reader(network, tuple(groups), image_shape)
    for node in reader.traced.graph.nodes:
        reader.read(node)
    return tuple(reader.operators), tuple(reader.unseen)


class _Reader:
    """Reads a traced network node by node, and follows the channels of its tensors."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> None:
        with evaluating(network), torch.no_grad():
            self.traced = trace(network, image_shape)
        self.operators: list[Operator] = []
        self.unseen: list[Unseen] = []
        self._groups = groups
        self._widths = {group.name: group.width for group in groups}
        self._recorded = record_products(self.traced, network, image_shape)
        self._position = {node: place for place, node in enumerate(self.traced.graph.nodes)}
        self._flows: dict[fx.Node, Flow] = {}
        self._from_images: set[fx.Node] = set()
        self._fused: set[fx.Node] = set()

    def read(self, node: fx.Node) -> None:
        """Append what a node computes, and note where its channels come from."""
        if node.op == "placeholder":
            self._from_images.add(node)
            self._flows[node] = Flow((), shape_of(node)[1])
            return
        if node.op == "output" or not any(source in self._from_images for source in node.all_input_nodes):
            return
        self._from_images.add(node)
        recorded = self._recorded.get(node, [])
        flow = passed_on(self.traced, node, self._flows, self._widths)
        if recorded:
            flow = self._products(node, recorded)
        elif node not in self._fused:
            self._light(node, flow)
        if flow is not None:
            self._flows[node] = flow

    def _products(self, node: fx.Node, recorded: list[Product]) -> Flow | None:
        """Append the products of a node; return the channels of its output where it is one product's."""
        module, name = module_of(self.traced, node), self._name(node, recorded)
        flow = None
        for number, product in enumerate(recorded, 1):
            alone = len(recorded) == 1
            epilogue, fused = epilogue_of(self.traced, node, self._position) if alone and product.name == "convolution" else ("none", ())
            found = classify(product, epilogue, by_weights=module is not None or self._second_is_constant(node))
            called = name if alone else f"{name}.{number}"
            if found is None:
                self.unseen.append(Unseen(name=f"{called} ({product.name})", macs=product.macs // BATCH))
                continue
            self._fused.update(fused)
            inputs, output = self._channels(node, name, found) if alone else (Flow((), found.inputs), None)
            quantized = isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and getattr(module, "padding_mode", "zeros") == "zeros"
            self._append(called, found.operator, inputs, output, found.outputs, quantized=quantized)
            if alone:
                multiplied = inputs.times(found.operator.multiplier)
                flow = multiplied if found.operator.depthwise else Flow(((output, 1),), 0) if output else Flow((), found.outputs)
        return flow

    def _channels(self, node: fx.Node, name: str, found: Classified) -> tuple[Flow, str | None]:
        """Return where an operator's input channels come from, and the group of its outputs."""
        members = [(group, member) for group in self._groups for member in group.members if member.module == name]
        if found.operator.op == "matmul":
            return self._operands(node, found)
        output = next((group.name for group, member in members if member.side == "out" and len(member.indices) == found.outputs == group.width), None)
        if found.operator.depthwise:
            source = self._followed(node.all_input_nodes[:1], found.inputs)
            return source if source.groups or output is None else Flow(((output, 1),), 0), output if _is_group(source, output) else None
        inputs = tuple((group.name, len(member.indices) // group.width) for group, member in members if member.side == "in")
        if not members:
            return self._followed(node.all_input_nodes[:1], found.inputs), None
        return Flow(inputs, found.inputs - sum(self._widths[group] * factor for group, factor in inputs)), output

    def _operands(self, node: fx.Node, found: Classified) -> tuple[Flow, str | None]:
        """Return the same of a product of two tensors, whose inner channels are the first's, and whose outer ones may be a group of the second's."""
        first, second = node.all_input_nodes[:1], node.all_input_nodes[1:2]
        outer = self._followed(second, found.outputs)
        group = outer.groups[0][0] if len(outer.groups) == 1 else None
        return self._followed(first, found.inputs), group if _is_group(outer, group) else None

    def _followed(self, sources: list[fx.Node], channels: int) -> Flow:
        """Return the groups of a tensor's channels, where these or a multiple of them are `channels`; else as many fixed ones."""
        flow = self._flows.get(sources[0]) if sources else None
        total = flow.total(self._widths) if flow is not None else 0
        return flow.times(channels // total) if flow is not None and total and channels % total == 0 else Flow((), channels)

    def _light(self, node: fx.Node, flow: Flow | None) -> None:
        if not is_tensor(node):
            return
        shape = shape_of(node)
        channels = flow or Flow((), shape[1] if len(shape) in {2, 4} else shape[-1])
        total = channels.total(self._widths)
        operator = light_class(self.traced, node, total) if total and size_of(node) % total == 0 else None
        if operator is None:
            return
        behind = set(node.users) if operator.epilogue == "relu" else set()
        self._fused |= behind
        name = str(node.target) if node.op == "call_module" else f"{node.name}()"
        self._append(name, operator, channels, None, total, quantized=operator.op in IN_INT8)

    def _append(self, name: str, operator: OperatorClass, inputs: Flow, output: str | None, outputs: int, *, quantized: bool) -> None:
        used = [group for group, _ in inputs.groups] + ([output] if output else [])
        self.operators.append(
            Operator(
                module=name,
                operator=operator,
                inputs=inputs.groups,
                fixed_inputs=inputs.fixed,
                output=output,
                fixed_outputs=0 if output else outputs,
                full_widths=tuple((group, width) for group, width in self._widths.items() if group in used),
                quantized=quantized,
            )
        )

    def _second_is_constant(self, node: fx.Node) -> bool:
        """Whether only the first tensor that a function reads depends on the image."""
        return not any(source in self._from_images for source in node.all_input_nodes[1:])

    def _name(self, node: fx.Node, recorded: list[Product]) -> str:
        """Return the module that a node calls, or whose weight it reads, perhaps after computing with it."""
        if node.op == "call_module":
            return str(node.target)
        weights = _parameters(node, self._from_images, self.traced)
        sizes = {name: count for name, count in weights.items() if count == _size(recorded[0].operands[1])}
        owner = next(iter(sizes), "").rpartition(".")[0] if len(recorded) == 1 else ""
        return owner or f"{node.name}()"


def _is_group(flow: Flow, group: str | None) -> bool:
    """Whether channels are those of one group, and nothing else."""
    return group is not None and flow == Flow(((group, 1),), 0)


def _parameters(node: fx.Node, from_images: Collection[fx.Node], traced: fx.GraphModule) -> dict[str, int]:
    """Return the names and sizes of the tensors of the network that a node's constants are computed from."""
    found: dict[str, int] = {}
    seen, waiting = set(), [source for source in node.all_input_nodes if source not in from_images]
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        waiting += source.all_input_nodes
        if source.op == "get_attr":
            owner, _, attribute = str(source.target).rpartition(".")
            value = getattr(traced.get_submodule(owner), attribute, None)
            found |= {str(source.target): value.numel()} if isinstance(value, torch.Tensor) else {}
    return found


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
