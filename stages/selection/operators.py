"""The operators of a network as the runtime fuses them, with the groups that their channels belong to."""

import math
from collections.abc import Collection, Iterable

import torch
from torch import fx, nn

from bonsai.stages.graph.products import BATCH, Product, record_products
from bonsai.stages.graph.rebuilding import STACK
from bonsai.stages.graph.trace import module_of, shape_of, trace
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.pruning.groups import Group, blocks_of
from bonsai.stages.selection.channels import Located
from bonsai.stages.selection.classes import IN_INT8, Classified, classify, classify_light, epilogue_of
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
    """Reads a traced network node by node."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> None:
        with evaluating(network), torch.no_grad():
            self.traced = trace(network, image_shape)
        self.operators: list[Operator] = []
        self.unseen: list[Unseen] = []
        self._widths = {group.name: group.width for group in groups}
        self._blocks = blocks_of(groups)
        self._located = Located(network, groups)
        self._recorded = record_products(self.traced, network, image_shape, self._located.at)
        self._position = {node: place for place, node in enumerate(self.traced.graph.nodes)}
        self._from_images: set[fx.Node] = set()
        self._fused: set[fx.Node] = set()

    def read(self, node: fx.Node) -> None:
        """Append what a node computes."""
        if node.op == "placeholder":
            self._from_images.add(node)
            return
        if node.op == "output" or not any(source in self._from_images for source in node.all_input_nodes):
            return
        self._from_images.add(node)
        recorded = self._recorded.products.get(node, [])
        if recorded:
            self._products(node, recorded)
        elif node not in self._fused:
            self._light(node)

    def _products(self, node: fx.Node, recorded: list[Product]) -> None:
        """Append the products of a node."""
        module, name = module_of(self.traced, node), self._name(node, recorded)
        quantized = isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and getattr(module, "padding_mode", "zeros") == "zeros"
        for number, product in enumerate(recorded, 1):
            alone = len(recorded) == 1
            epilogue, fused = epilogue_of(self.traced, node, self._position) if alone and product.name == "convolution" else ("none", ())
            found = classify(product, self._located, epilogue, by_weights=module is not None or self._second_is_constant(node))
            called = name if alone else f"{name}.{number}"
            if found is None:
                self.unseen.append(Unseen(name=f"{called} ({product.name})", macs=product.macs // BATCH))
                continue
            self._fused.update(fused)
            self._append(node, called, found, quantized=quantized)

    def _light(self, node: fx.Node) -> None:
        found = classify_light(self.traced, node, self._located, self._recorded.factors.get(node, []))
        if found is None:
            return
        self._fused |= set(node.users) if found.operator.epilogue == "relu" else set()
        name = str(node.target) if node.op == "call_module" else f"{node.name}()"
        of_series = len(shape_of(node)) == 3
        self._append(node, name, found, quantized=found.operator.op in IN_INT8 and not (of_series and found.operator.op == "avg_pool"))

    def _append(self, node: fx.Node, name: str, found: Classified, *, quantized: bool) -> None:
        used = {group for group, _ in (*found.inputs.groups, *found.outputs.groups)}
        self.operators.append(
            Operator(
                module=name,
                operator=found.operator,
                inputs=found.inputs.groups,
                fixed_inputs=found.inputs.fixed,
                outputs=found.outputs.groups,
                fixed_outputs=found.outputs.fixed,
                full_widths=tuple((group, width) for group, width in self._widths.items() if group in used),
                quantized=quantized,
                block=next((self._blocks[module] for module in node.meta.get(STACK, ()) if module in self._blocks), ()),
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
