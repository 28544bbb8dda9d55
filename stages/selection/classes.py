"""The operator class of what a node of a traced network computes."""

import math
from typing import Any, Literal, NamedTuple

from torch import fx

from bonsai.profiles.operator_class import Heavy, Light, OperatorClass
from bonsai.stages.graph.kinds import before, is_add, is_mul, is_tensor, operation, rectified_to
from bonsai.stages.graph.products import BATCH, Product
from bonsai.stages.graph.trace import argument, module_of, only_user, shape_of
from bonsai.stages.pruning.coupling.labels import Factor
from bonsai.stages.selection.channels import Channels, Located

PASSED_OVER = {"identity", "flatten", "reshape", "view", "squeeze"}
"""Operations that cost nothing, which may be between a tensor and the operator that computed it."""
POOLS: dict[str, Light] = {"max_pool": "max_pool", "avg_pool": "avg_pool", "adaptive_max_pool": "max_pool", "adaptive_avg_pool": "avg_pool"}
LIGHTS: dict[str, Light] = {
    "leaky_relu": "leaky_relu", "prelu": "leaky_relu", "elu": "elu", "selu": "elu", "celu": "elu", "silu": "silu", "hardswish": "hardswish", "mish": "mish",
    "gelu": "gelu", "tanh": "tanh", "sigmoid": "sigmoid", "hardsigmoid": "hardsigmoid", "softmax": "softmax",
    **{f"{kind}{dims}d": pool for kind, pool in POOLS.items() for dims in (1, 2)}, "batch_norm": "batch_norm", "layer_norm": "layer_norm",
    "group_norm": "group_norm", "cat": "concat", "interpolate": "resize", "upsample": "resize", "upsample_nearest2d": "resize", "upsample_bilinear2d": "resize",
}  # fmt: skip
"""Operators without a matrix product, by the name that `operation` returns, in lower case with or without underscores."""
IN_INT8: frozenset[Light] = frozenset(
    {"add", "mul", "relu", "silu", "hardswish", "sigmoid", "hardsigmoid", "max_pool", "avg_pool", "global_pool", "batch_norm", "concat"}
)
"""The operators that can be quantised."""
LAST: frozenset[Light] = frozenset({"softmax", "layer_norm"})
"""The operators over the last dimension, which holds the channels."""
FIRST: frozenset[Light] = frozenset({"max_pool", "avg_pool", "global_pool", "batch_norm", "group_norm", "resize"})
"""The operators whose channels lie in the first dimension behind the batch, of a series too."""
Epilogue = Literal["none", "relu", "add", "add_relu"]
_SHORT = {name.replace("_", ""): light for name, light in LIGHTS.items()}


class Classified(NamedTuple):
    """An operator's class and its channels; no outputs where they follow from the inputs."""

    operator: OperatorClass
    inputs: Channels
    outputs: Channels


def classify(product: Product, located: Located, epilogue: Epilogue, *, by_weights: bool) -> Classified | None:
    """Return the class of a recorded product, or None where no class describes it.

    Args:
        product: The recorded product.
        located: The groups of the network.
        epilogue: Operations that are fused behind it.
        by_weights: Whether the second operand is the network's own, the same for every image.
    """
    if product.name == "convolution":
        return _convolution(product, located, epilogue)
    if product.name in {"mm", "addmm"} and by_weights:
        return _linear(product, located)
    return _product(product, located) if product.name in {"bmm", "baddbmm"} else None


def _linear(product: Product, located: Located) -> Classified | None:
    """Return the class of a layer on every row; None where rows leave, as of a layer that mixes the tokens of every channel."""
    (rows, inputs), (_, outputs) = product.operands
    first, _, result = product.factors
    if rows % BATCH or located.along(first, 0, rows).groups:
        return None
    return Classified(OperatorClass(op="linear", tokens=rows // BATCH), located.along(first, 1, inputs), located.along(result, 1, outputs))


def _product(product: Product, located: Located) -> Classified | None:
    """Return the class of a product of two tensors in every head: heads leave whole, or every head loses channels alike; None where rows leave."""
    (heads, rows, inner), (_, _, outer) = product.operands
    first, second, _ = product.factors
    if located.along(first, 1, rows).groups or (heads % BATCH and rows % BATCH):
        return None
    whole = located.along(first, 0, heads)
    inputs, outputs = located.along(first, 2, inner), located.along(second, 2, outer)
    if whole.groups and (inputs.groups or outputs.groups):
        return None
    if heads % BATCH:
        rows //= BATCH
    else:
        heads //= BATCH
        whole = Channels(tuple((name, positions // BATCH) for name, positions in whole.groups), whole.fixed // BATCH)
    if whole.groups:
        return Classified(OperatorClass(op="matmul", group_channels=(inner, outer), tokens=rows), whole.times(inner), Channels((), 0))
    return Classified(OperatorClass(op="matmul", groups=heads, tokens=rows), inputs.times(heads), outputs.times(heads))


def _convolution(product: Product, located: Located, epilogue: Epilogue) -> Classified | None:
    stride, _, dilation, transposed, _, groups = product.arguments
    read, weight = product.operands
    rank = len(read) - 2
    if rank not in {1, 2} or (transposed and rank == 1) or read[0] != BATCH:
        return None
    op: Heavy = "conv1d" if rank == 1 else "conv_transposed" if transposed else "conv"
    inputs, outputs = read[1], product.output[1]
    first, _, result = product.factors
    whole = groups > 1 and (groups == inputs or located.leaves_whole(first, 1, groups))
    size, input_size = (_pair(shape[2:]) for shape in (product.output, read))
    found = OperatorClass(
        op=op,
        kernel=_pair(weight[2:]),
        stride=_pair(stride),
        dilation=_pair(dilation),
        height=size[0],
        width=size[1],
        groups=1 if whole else groups,
        group_channels=(inputs // groups, outputs // groups) if whole else None,
        epilogue=epilogue,
    )
    written = Channels((), 0) if whole else located.along(result, 1, outputs)
    return Classified(_reading(found, input_size), located.along(first, 1, inputs), written)


def classify_light(traced: fx.GraphModule, node: fx.Node, located: Located, factors: list[Factor]) -> Classified | None:
    """Return the class of a node that multiplies no matrices, or None where it costs nothing or is not known.

    Args:
        traced: The graph.
        node: The node.
        located: The groups of the network.
        factors: Labels of its output.
    """
    op = _light(traced, node)
    if op is None or not is_tensor(node):
        return None
    shape = shape_of(node)
    usual = 1 if op in FIRST or (len(shape) in {2, 4} and op not in LAST) else len(shape) - 1
    every = {axis: located.along(factors, axis, shape[axis]) for axis in range(1, len(shape))}
    axis = next((axis for axis in (usual, *every) if every[axis].groups), usual)
    if op == "softmax" and axis != usual:
        each = shape[usual]
        operator = OperatorClass(op=op, group_channels=(each, each), height=_size_of(node) // (shape[axis] * each))
        return Classified(operator, every[axis].times(each), Channels((), 0))
    return Classified(_light_class(traced, node, op, shape[axis]), every[axis], Channels((), 0))


def _light_class(traced: fx.GraphModule, node: fx.Node, op: Light, channels: int) -> OperatorClass:
    source = max((each for each in node.all_input_nodes if is_tensor(each)), key=_size_of)
    read = _size(source, channels) if op in {"max_pool", "avg_pool", "global_pool", "resize"} else _size(node, channels)
    height, width = (1, 1) if op == "global_pool" else _size(node, channels)
    kernel, stride = (1, 1), (1, 1)
    if op in {"max_pool", "avg_pool"}:
        stride = max(round(read[0] / height), 1), max(round(read[1] / width), 1)
        kernel = _window(traced, node) or stride
    behind = only_user(node)
    epilogue: Epilogue = "relu" if op == "add" and behind is not None and rectified_to(traced, behind) is not None else "none"
    return _reading(OperatorClass(op=op, kernel=kernel, stride=stride, height=height, width=width, epilogue=epilogue), read)


def epilogue_of(traced: fx.GraphModule, node: fx.Node, position: dict[fx.Node, int]) -> tuple[Epilogue, tuple[fx.Node, ...]]:
    """Return what is fused behind a convolution, and the nodes that this is; an add belongs to the last of its inputs to be computed.

    Args:
        traced: The graph.
        node: The convolution.
        position: Position of every node in the graph.
    """
    taken: tuple[fx.Node, ...] = ()
    after = only_user(node)
    if after is not None and operation(traced, after) == "batch_norm":
        taken, node, after = (after,), after, only_user(after)
    if after is None:
        return "none", taken
    if rectified_to(traced, after) is not None:
        return "relu", (*taken, after)
    if not is_add(traced, after) or position[node] < max(position[before(traced, added, PASSED_OVER)] for added in after.all_input_nodes):
        return "none", taken
    behind = only_user(after)
    if behind is None or rectified_to(traced, behind) is None:
        return "add", (*taken, after)
    return "add_relu", (*taken, after, behind)


def _light(traced: fx.GraphModule, node: fx.Node) -> Light | None:
    if node.op not in {"call_module", "call_function", "call_method"}:
        return None
    if is_add(traced, node):
        return "add"
    if is_mul(traced, node):
        return "mul"
    if rectified_to(traced, node) is not None:
        return "relu"
    if _averages_all(traced, node):
        return "global_pool"
    return _SHORT.get(operation(traced, node).lower().replace("_", ""))


def _window(traced: fx.GraphModule, node: fx.Node) -> tuple[int, int] | None:
    """Return the kernel of a pooling, or None for an adaptive one; of one over a series its length and 1, as `_size` has it."""
    module = module_of(traced, node)
    kernel: Any = argument(node, 1, "kernel_size", None) if module is None else getattr(module, "kernel_size", None)
    if operation(traced, node).startswith("adaptive") or kernel is None:
        return None
    first, last = (kernel, kernel) if isinstance(kernel, int) else (int(kernel[0]), int(kernel[-1]))
    return first, 1 if operation(traced, node).endswith("1d") else last


def _size_of(node: fx.Node) -> int:
    """Return the number of a tensor's values for one image."""
    return max(math.prod(shape_of(node)) // BATCH, 1)


def _averages_all(traced: fx.GraphModule, node: fx.Node) -> bool:
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


def _size(node: fx.Node, channels: int) -> tuple[int, int]:
    """Return height and width of a tensor's maps; of one that is no image its places, and 1."""
    shape = shape_of(node)
    if len(shape) == 4 and shape[0] == BATCH and shape[1] == channels:
        return shape[2], shape[3]
    return max(_size_of(node) // channels, 1), 1


def _reading(operator: OperatorClass, size: tuple[int, int]) -> OperatorClass:
    """Return a class with its input size, where that is not the usual one."""
    return operator if operator.reads == size else operator.model_copy(update={"input_size": size})


def _pair(values: tuple[int, ...] | list[int]) -> tuple[int, int]:
    """Return (height, width) of what may have one side alone, which is then the width."""
    values = tuple(int(value) for value in values)
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])
