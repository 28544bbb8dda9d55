"""Nodes that stay in float within a quantised network."""

import copy
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.graph.kinds import is_activation, operation
from bonsai.stages.graph.restoring import ByMode
from bonsai.stages.graph.trace import module_of, trace
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.layer_names import matches, matching
from bonsai.stages.networks.packed_inputs import pack_again
from bonsai.stages.quantization.grids import computes
from bonsai.stages.quantization.layers import Convolution, QuantConvolution, QuantLinear
from bonsai.stages.quantization.rewrite import rewrite
from bonsai.stages.quantization.taking import folded_into, keep_in_float, name_of, takes_layer

MOVES = {
    *("identity", "flatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "permute", "transpose", "expand", "expand_as"),
    *("max_pool1d", "max_pool2d"),
    *("getitem", "getattr", "size", "chunk", "split", "unbind", "slice", "select", "narrow", "stack", "roll", "flip", "pad", "repeat", "to", "clone", "detach"),
    *("relu", "relu6", "hardtanh", "clamp", "neg", "dim", "type_as", "unflatten", "swapaxes", "movedim", "T", "rearrange", "pixel_shuffle", "channel_shuffle"),
}
"""Operations that cost almost nothing, or are fused into the kernel before them."""
CONVOLUTIONS = ("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable")
"""Names of torch's convolution operators."""


class FloatNode(NamedTuple):
    """A node of a quantised network that computes in float.

    Attributes:
        name: Name for `quantize.keep_float`.
        operation: Name of its operation.
    """

    name: str
    operation: str

    @property
    def described(self) -> str:
        """Name and operation, for people."""
        return f"{self.name} ({self.operation})"


class FloatConvolutions(NamedTuple):
    """Convolutions of a quantised network that an engine may run in float.

    Attributes:
        kept: Those that the recipe or the search keeps there, which it must.
        most: These, those that the quantiser does not take, and transposed ones, which not every runtime has an INT8 kernel for.
    """

    kept: int
    most: int


def quantizable(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the layers of a float network that are quantised where nothing is kept in float, in the order of execution."""
    traced = trace(network, image_shape)
    return tuple(dict.fromkeys(name_of(node) for node in traced.graph.nodes if takes_layer(traced, node)))


def layers_to_keep(network: nn.Module, globs: Iterable[str], image_shape: tuple[int, ...], *, dropped: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of what a recipe leaves in float, in the order of execution: of what would be quantised otherwise.

    Args:
        network: A float network.
        globs: Of `quantize.keep_float`: over names of modules, of what holds them, and of functions as the graph calls them.
        image_shape: (channels, height, width).
        dropped: Residual blocks that the network has lost: a glob may have named what was in them.

    Raises:
        ConfigError: A glob matches nothing, or nothing is left to quantise.
    """
    globs = tuple(globs)
    if not globs:
        return ()
    traced = trace(network, image_shape)
    layers = {name_of(node) for node in traced.graph.nodes if takes_layer(traced, node)}
    folded = {name_of(bn): name_of(node) for node in traced.graph.nodes if takes_layer(traced, node) and (bn := folded_into(traced, node)) is not None}
    names = list(dict.fromkeys(name_of(node) for node in traced.graph.nodes if node.op not in {"placeholder", "output", "get_attr"}))
    keep_in_float(traced, ())
    rewrite(traced, Quantizers(dialect="ort", weight_bits=8))
    computing = list(dict.fromkeys(name_of(node) for node in traced.graph.nodes if computes(traced, node)))
    others = [name for name, _ in network.named_modules() if name and name not in names]
    found: set[str] = set()
    for glob in globs:
        if any(matches(name, glob) for name in computing):
            found |= {name for name in computing if matches(name, glob)}
        elif not dropped and not any(matches(name, glob) for name in [*names, *others]):
            matching(glob, computing, problem="quantize.keep_float: nothing that computes has this name")
        found |= {name for name, conv in folded.items() if matches(name, glob) and conv not in found}
    if layers and layers <= found:
        given, fix = ", ".join(globs), "keep fewer layers in float, or set the profile's target.precision to fp32"
        raise ConfigError(describe("quantize.keep_float leaves nothing to quantise", given=given, allowed="at least one layer that is quantised", fix=fix))
    return tuple(name for name in names if name in found)


def float_nodes(network: fx.GraphModule) -> tuple[FloatNode, ...]:
    """Return what a quantised network computes in float, in the order of execution; what only moves values is left out."""
    found = {}
    for node in network.graph.nodes:
        if node.op not in {"call_function", "call_method", "call_module"} or getattr(module_of(network, node), "holds_scales", False):
            continue
        what = operation(network, node)
        if what in MOVES or what == "SameGrid" or computes(network, node) or not _yields_activation(node) or _is_cheap(network, node):
            continue
        module = module_of(network, node)
        found[name_of(node)] = FloatNode(name_of(node), module.extra_repr() if isinstance(module, ByMode) else what)
    return tuple(found.values())


def _yields_activation(node: fx.Node) -> bool:
    """Whether a node makes tensors, or a tuple of them, out of tensors that depend on the images."""
    return any(is_activation(source) for source in node.all_input_nodes) and "tensor_meta" in node.meta


def _is_cheap(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node only scales or shifts: by a number, or as a BatchNorm that the float convolution before it takes in."""
    what, sources = operation(network, node), node.all_input_nodes
    if what in {"add", "mul", "sub", "div", "truediv"}:
        return len(sources) == 1
    return what == "batch_norm" and isinstance(module_of(network, sources[0]), Convolution)


def count_float_convolutions(network: nn.Module, quantizers: Quantizers, image_shape: tuple[int, ...]) -> FloatConvolutions:
    """Return how many convolutions of a quantised network are in float on purpose, call by call.

    Args:
        network: Result of `insert_quantizers`, or one whose inputs were parted.
        quantizers: Its quantisers.
        image_shape: (channels, height, width), or (total,) of several inputs joined.
    """
    graph = cast(fx.GraphModule, network)
    called = [(name_of(node), module_of(graph, node)) for node in graph.graph.nodes if node.op == "call_module"]
    kept = sum(isinstance(module, nn.Conv1d | nn.Conv2d) and name in quantizers.kept_float for name, module in called)
    int8 = sum(isinstance(module, QuantConvolution) and isinstance(module.conv, nn.Conv1d | nn.Conv2d) for _, module in called)
    with torch.no_grad(), _Convolutions() as counted:
        pack_again(copy.deepcopy(graph).eval())(torch.zeros(1, *image_shape))
    return FloatConvolutions(kept, counted.number - int8)


def is_quantised(network: nn.Module) -> bool:
    """Whether a network holds any layer of INT8."""
    return any(isinstance(module, QuantConvolution | QuantLinear) for module in network.modules())


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Counts the convolutions that run while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and count it if it is a convolution."""
        self.number += str(getattr(func, "__name__", "")).partition(".")[0] in CONVOLUTIONS
        return func(*args, **(kwargs or {}))
