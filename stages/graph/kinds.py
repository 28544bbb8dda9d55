"""Names the operation of a node in a traced network, for modules, functions and methods alike."""

import math
from typing import Any

from torch import fx, nn

from bonsai.stages.graph.symbolic import is_plain
from bonsai.stages.graph.trace import argument, module_of
from bonsai.stages.graph.values import ACTIVATION, IDENTITY

MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Hardtanh: "hardtanh",  # and nn.ReLU6, its subclass
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.MaxPool1d: "max_pool1d",
    nn.MaxPool2d: "max_pool2d",
    nn.AvgPool1d: "avg_pool1d",
    nn.AvgPool2d: "avg_pool2d",
    nn.AdaptiveAvgPool1d: "adaptive_avg_pool1d",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.Flatten: "flatten",
    nn.Dropout: "identity",
    nn.Dropout1d: "identity",
    nn.Dropout2d: "identity",
    nn.Dropout3d: "identity",
    nn.AlphaDropout: "identity",
    nn.FeatureAlphaDropout: "identity",
    nn.Identity: "identity",
}
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
FUNCTIONS = {"iadd": "add", "imul": "mul", "concat": "cat", "concatenate": "cat", "clip": "clamp", **dict.fromkeys(DROPOUTS, "identity")}
SAME_VALUES = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "permute", "transpose", "expand", "expand_as", "max_pool1d", "max_pool2d"}
"""Operations that only select, move or repeat values of their first input."""


def operation(traced: fx.GraphModule, node: fx.Node) -> str:
    """Return what a node does: a word of the tables above, or the name of what it calls; in-place forms have no name of their own."""
    module = module_of(traced, node)
    if module is not None:
        if node.meta.get(IDENTITY):
            return "identity"
        return next((name for kind, name in MODULES.items() if is_plain(module, kind)), type(module).__name__)
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0].rstrip("_")  # an operator of a captured graph is add_.Tensor
    if node.op == "call_function" and not _is_known(node.target):
        return f"{getattr(node.target, '__module__', '')}.{name}"
    return FUNCTIONS.get(name, name) if node.op in {"call_function", "call_method"} else node.op


def is_tensor(node: fx.Node) -> bool:
    """Whether a node's value is a tensor, and not a size or a tuple."""
    return hasattr(node.meta.get("tensor_meta"), "shape")


def is_activation(node: fx.Node) -> bool:
    """Whether a node's value is a tensor of floating-point numbers that depend on the images, and not a parameter or a mask."""
    return is_tensor(node) and bool(node.meta["tensor_meta"].dtype.is_floating_point and node.meta.get(ACTIVATION))


def is_add(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node adds two tensors, neither of them times a factor."""
    return operation(traced, node) == "add" and _takes_two_tensors(node) and argument(node, 2, "alpha", 1) == 1


def is_mul(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node multiplies two tensors, element by element."""
    return operation(traced, node) == "mul" and _takes_two_tensors(node)


def rectified_to(traced: fx.GraphModule, node: fx.Node) -> float | None:
    """Return the highest value that a rectifier lets through: infinity for ReLU, 6 for ReLU6, None for what is no rectifier."""
    kind, module = operation(traced, node), module_of(traced, node)
    if kind in {"relu", "relu6"}:
        return 6.0 if kind == "relu6" else math.inf
    if isinstance(module, nn.Hardtanh) and kind == "hardtanh":
        low, high = module.min_val, module.max_val
    elif kind == "hardtanh":
        low, high = argument(node, 1, "min_val", -1.0), argument(node, 2, "max_val", 1.0)
    elif kind == "clamp":
        low, high = argument(node, 1, "min", None), argument(node, 2, "max", None)
    else:
        return None
    if not isinstance(low, int | float) or low != 0 or not isinstance(high, int | float | None):  # a learned bound is a node
        return None
    return math.inf if high is None else float(high)


def before(traced: fx.GraphModule, node: fx.Node, operations: set[str]) -> fx.Node:
    """Return the node whose values `node` passes on, through nothing but the named operations."""
    while operation(traced, node) in operations:
        node = node.all_input_nodes[0]
    return node


def readers(traced: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Return the nodes that read a node's tensor, seen through what is an identity in evaluation."""
    found = []
    for user in node.users:
        found += readers(traced, user) if operation(traced, user) == "identity" else [user]
    return found


def _takes_two_tensors(node: fx.Node) -> bool:
    arguments = [*node.args, *node.kwargs.values()][:2]
    return len(arguments) == 2 and all(isinstance(each, fx.Node) and is_tensor(each) for each in arguments)


def _is_known(function: Any) -> bool:
    """Whether a function is torch's or Python's own, so that its name says what it does."""
    home = getattr(function, "__module__", None) or ""
    return home.partition(".")[0] in {"", "torch", "_operator", "builtins", "math"}
