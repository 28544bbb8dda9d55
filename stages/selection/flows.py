"""Follows the channels of a tensor through a traced network to the groups that they belong to."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import fx

from bonsai.stages.graph.kinds import SAME_VALUES, is_tensor, operation
from bonsai.stages.graph.products import BATCH
from bonsai.stages.graph.trace import argument, shape_of

POOLS = {
    *("max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "upsample", "pad"),
}


class Flow(NamedTuple):
    """Channels of a tensor.

    Attributes:
        groups: Groups that they come from, each with its number of positions per channel.
        fixed: Channels of no group.
    """

    groups: tuple[tuple[str, int], ...]
    fixed: int

    def total(self, widths: Mapping[str, int]) -> int:
        """Return the number of channels at the given widths."""
        return self.fixed + sum(widths[name] * factor for name, factor in self.groups)

    def times(self, factor: int) -> "Flow":
        """Return the channels with `factor` positions each."""
        return Flow(tuple((name, each * factor) for name, each in self.groups), self.fixed * factor)

    @classmethod
    def joined(cls, flows: "list[Flow]") -> "Flow":
        """Return the channels of a concatenation; a group that comes twice counts twice."""
        factors: dict[str, int] = {}
        for flow in flows:
            for name, factor in flow.groups:
                factors[name] = factors.get(name, 0) + factor
        return cls(tuple(factors.items()), sum(flow.fixed for flow in flows))


def size_of(node: fx.Node) -> int:
    """Return the number of a tensor's values for one image."""
    return max(math.prod(shape_of(node)) // BATCH, 1)


def passed_on(traced: fx.GraphModule, node: fx.Node, flows: Mapping[fx.Node, Flow], widths: Mapping[str, int]) -> Flow | None:
    """Return the channels of what a node makes of its inputs without mixing them, or None where they cannot be followed."""
    sources = [source for source in node.all_input_nodes if source in flows and is_tensor(source)]
    if not sources or not is_tensor(node):
        return None
    kind = operation(traced, node)
    if kind == "cat":
        tensors = [source for source in node.all_input_nodes if is_tensor(source)]
        across = argument(node, 1, "dim", 0) in {1, 1 - len(shape_of(node))}
        return Flow.joined([flows[source] for source in tensors]) if across and all(source in flows for source in tensors) else None
    source = max(sources, key=lambda each: (size_of(each), len(flows[each].groups)))
    before, after = shape_of(source), shape_of(node)
    keeps = after == before or (kind in SAME_VALUES | {"identity"} and size_of(node) == size_of(source)) or (kind in POOLS and after[:2] == before[:2])
    keeps = keeps or averages_all(traced, node) or (kind in {"expand", "expand_as"})
    return flows[source] if keeps and size_of(node) % flows[source].total(widths) == 0 else None


def averages_all(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node reduces height and width, or the time of a series, and nothing else, to one value."""
    kind = operation(traced, node)
    (source, *_) = node.all_input_nodes or [node]
    if is_tensor(node) and kind in {"adaptive_avg_pool1d", "adaptive_max_pool1d"}:
        return len(shape_of(node)) == 3 and shape_of(node)[2] == 1
    if not is_tensor(source) or len(shape_of(source)) != 4 or not is_tensor(node):
        return False
    if kind in {"adaptive_avg_pool2d", "adaptive_max_pool2d"}:
        return shape_of(node)[2:] == (1, 1)
    dims = argument(node, 1, "dim", ())
    return kind in {"mean", "sum", "amax"} and isinstance(dims, list | tuple) and sorted(dim % 4 for dim in dims) == [2, 3]
