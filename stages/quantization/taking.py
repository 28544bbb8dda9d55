"""Finds the nodes of a traced network that can be quantised; all others stay in float."""

import sys
from collections.abc import Container

from torch import fx, nn

from bonsai.stages.graph.kinds import is_activation
from bonsai.stages.graph.symbolic import has_hooks, is_plain
from bonsai.stages.graph.trace import module_of, only_user, shape_of
from bonsai.stages.quantization.layers import BatchNorm, Convolution

FLOAT, NAME = "float", "name"
"""Keys of a node's metadata: whether the recipe keeps it in float, and its name in the recipe, even after another module replaced it."""
RANKS: dict[type[nn.Module], int] = {nn.Conv1d: 3, nn.Conv2d: 4, nn.ConvTranspose2d: 4}
"""Dimensions of the tensors that each kind of convolution reads, with the one of the batch."""
ANY_RANK = range(2, sys.maxsize)
"""Dimensions of what a linear layer or a BatchNorm reads: two or more."""


def keep_in_float(traced: fx.GraphModule, names: tuple[str, ...]) -> None:
    """Mark the nodes that a recipe or a search leaves in float, by the name of their module or, where they call none, their own."""
    for node in traced.graph.nodes:
        node.meta[NAME] = name_of(node)
        node.meta[FLOAT] = node.meta[NAME] in names


def name_of(node: fx.Node) -> str:
    """Return what a recipe calls a node: its module, or its own name in the graph."""
    return str(node.meta.get(NAME) or (node.target if node.op == "call_module" else node.name))


def is_kept(node: fx.Node) -> bool:
    """Whether a node is in float on purpose."""
    return bool(node.meta.get(FLOAT))


def calls_of(traced: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Return all nodes that call the module that a node calls."""
    return [other for other in traced.graph.nodes if other.op == "call_module" and other.target == node.target]


def takes_layer(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a layer that runs as INT8: all of its calls must be alike, since they share the weights."""
    module = module_of(traced, node)
    kind = next((kind for kind in (*RANKS, nn.Linear) if module is not None and is_plain(module, kind)), None)
    if kind is None or (isinstance(module, Convolution) and not _pads_alike(module)):
        return False
    ranks = {RANKS[kind]} if kind in RANKS else ANY_RANK
    return all(_reads_one(call, ranks) for call in calls_of(traced, node)) and not _is_read_inside(traced, node)


def takes_batch_norm(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a BatchNorm that is one factor and one summand per channel in evaluation, both of them learned."""
    module = module_of(traced, node)
    if module is None or not (is_plain(module, nn.BatchNorm2d) or is_plain(module, nn.BatchNorm1d)):
        return False
    assert isinstance(module, BatchNorm)
    affine = module.affine and module.running_mean is not None
    return affine and all(_reads_one(call, ANY_RANK) for call in calls_of(traced, node)) and not _is_read_inside(traced, node)


def folded_into(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the BatchNorm that a convolution takes in, if it alone reads the convolution and neither is called anywhere else."""
    after = only_user(node)
    if after is None or not is_batch_norm_of(traced, after, node) or is_kept(after) or not takes_batch_norm(traced, after):
        return None
    return after if len(calls_of(traced, node)) == len(calls_of(traced, after)) == 1 else None


def is_batch_norm_of(traced: fx.GraphModule, after: fx.Node, node: fx.Node) -> bool:
    """Whether `node` calls a convolution, and `after` a BatchNorm over as many dimensions."""
    convolution, bn = module_of(traced, node), module_of(traced, after)
    return isinstance(convolution, Convolution) and isinstance(bn, nn.BatchNorm1d if isinstance(convolution, nn.Conv1d) else nn.BatchNorm2d)


def is_altered(module: nn.Module | None) -> bool:
    """Whether a call of a module does more than its class says."""
    return module is not None and (has_hooks(module) or "forward" in vars(module))


def _pads_alike(module: Convolution) -> bool:
    """Whether a convolution pads with zeros, as much before as behind: what INT8 kernels do themselves."""
    if module.padding_mode != "zeros":
        return False
    if module.padding != "same":
        return True
    return all(dilation * (kernel - 1) % 2 == 0 for dilation, kernel in zip(module.dilation, module.kernel_size, strict=True))


def _reads_one(node: fx.Node, ranks: Container[int]) -> bool:
    """Whether a node reads one tensor that depends on the images, of one of these numbers of dimensions, and nothing else."""
    if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node) or not is_activation(node.args[0]):
        return False
    return len(shape_of(node.args[0])) in ranks


def _is_read_inside(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the graph uses a layer's weights, or a module within it, beside the layer: they have other names once it is replaced."""
    return any(other.op in {"get_attr", "call_module"} and str(other.target).startswith(f"{node.target}.") for other in traced.graph.nodes)
