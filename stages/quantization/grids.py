"""Finds the tensors to quantise, their ranges, and the tensors that share a scale."""

import math
from typing import NamedTuple

from torch import fx

from bonsai.stages.graph.kinds import SAME_VALUES, before, is_activation, is_add, is_mul, is_tensor, operation, readers, rectified_to
from bonsai.stages.graph.trace import module_of, only_user
from bonsai.stages.quantization.layers import LoneBatchNorm, QuantConvolution, QuantLinear
from bonsai.stages.quantization.operations import AveragePool, GatedActivation, GlobalAverage
from bonsai.stages.quantization.taking import is_kept

READS_INTEGERS = (QuantConvolution, QuantLinear, LoneBatchNorm, GatedActivation, GlobalAverage, AveragePool)
GATES = {"sigmoid", "hardsigmoid"}
PASSES_SIGN = SAME_VALUES | {"identity", "adaptive_avg_pool1d", "adaptive_avg_pool2d", GlobalAverage.__name__, AveragePool.__name__}
"""Operations whose output is non-negative where their input is."""


class Form(NamedTuple):
    """Known bounds of a tensor's values: whether all are non-negative, and the highest value, if a clip sets one."""

    non_negative: bool
    highest: float | None


def tensors_to_quantize(traced: fx.GraphModule) -> list[fx.Node]:
    """Return, in the graph's order, what any INT8 operation reads, and what it produces with the rectifier behind it; no outputs of the network."""
    found: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if not computes(traced, node):
            continue
        sources = {before(traced, source, {"identity"}) for source in node.all_input_nodes if is_tensor(source)}
        end = _chain_end(traced, node)
        if not _is_output(traced, end):
            sources.add(before(traced, end, {"identity"}))
        for source in sources:
            found |= {source, before(traced, source, SAME_VALUES | {"identity"})}
    return [node for node in traced.graph.nodes if node in found]


def computes(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node computes in INT8; what involves a parameter or a mask does not."""
    if isinstance(module_of(traced, node), READS_INTEGERS):
        return True
    if is_kept(node) or not all(is_activation(source) for source in node.all_input_nodes):
        return False
    return is_add(traced, node) or is_mul(traced, node) or operation(traced, node) in GATES | {"cat"}


def grids(traced: fx.GraphModule, tensors: list[fx.Node]) -> dict[fx.Node, fx.Node]:
    """Return for every tensor the one whose scale it has: its own, or that of the first it shares one with.

    Values that are only moved keep their scale. A concatenation and those of its inputs that have the same form share one,
    which spares a runtime the rescaling; what is non-negative stays on a grid of its own, or the ReLU before it would
    not be part of the convolution any more.
    """
    grid: dict[fx.Node, fx.Node] = {}
    for node in tensors:
        moved = before(traced, node, SAME_VALUES | {"identity"})
        grid[node] = grid[moved] if moved is not node else node
        if operation(traced, node) == "cat" and computes(traced, node):
            form = form_of(traced, node)
            inputs = [before(traced, source, {"identity"}) for source in node.all_input_nodes]
            joined = {grid[node], *(grid[source] for source in inputs if form_of(traced, source) == form)}
            first = min(joined, key=tensors.index)
            grid |= {member: first for member, label in grid.items() if label in joined}
    return grid


def on_grid_already(traced: fx.GraphModule, node: fx.Node, grid: dict[fx.Node, fx.Node]) -> bool:
    """Whether all of a tensor's values come from tensors of its own grid."""
    if operation(traced, node) == "cat" and computes(traced, node):
        return all(grid[before(traced, source, {"identity"})] is grid[node] for source in node.all_input_nodes)
    return before(traced, node, SAME_VALUES | {"identity"}) is not node


def form_of(traced: fx.GraphModule, node: fx.Node) -> Form:
    """Return what is known of a tensor's values."""
    highest = rectified_to(traced, node)
    if highest is not None:
        return Form(True, highest if math.isfinite(highest) else None)
    kind = operation(traced, node)
    if kind in GATES:
        return Form(True, None)
    if not (kind in PASSES_SIGN | {"cat"} or is_add(traced, node) or is_mul(traced, node)):
        return Form(False, None)
    forms = {form_of(traced, source) for source in (node.all_input_nodes[:1] if kind in PASSES_SIGN else node.all_input_nodes)}
    if len(forms) == 1 and kind in SAME_VALUES | {"identity", "cat"}:
        return forms.pop()
    return Form(all(form.non_negative for form in forms), None)


def is_fused_in_trt(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether TensorRT computes a tensor and its only reader in one kernel: an activation, or a residual addition.

    Of an addition's inputs that is the first to be a convolution's output, read by nothing else.
    """
    behind = readers(traced, node)
    if len(behind) != 1:
        return False
    if isinstance(module_of(traced, behind[0]), GatedActivation) or operation(traced, behind[0]) in GATES:
        return isinstance(module_of(traced, node), QuantConvolution | QuantLinear) or is_add(traced, node) or is_mul(traced, node)
    if not is_add(traced, behind[0]):
        return False
    inputs = [before(traced, source, {"identity"}) for source in behind[0].all_input_nodes]
    convolutions = [source for source in inputs if isinstance(module_of(traced, source), QuantConvolution)]
    return convolutions[:1] == [node]


def _chain_end(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the rectifier behind a node, if that alone reads it, or the node itself."""
    after = only_user(node)
    return after if after is not None and rectified_to(traced, after) is not None else node


def _is_output(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a tensor leaves the network, perhaps in another shape."""
    return any(user.op == "output" or (operation(traced, user) in SAME_VALUES and _is_output(traced, user)) for user in readers(traced, node))
