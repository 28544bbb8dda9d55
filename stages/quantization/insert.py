"""Where quantisers go.

Every tensor that a convolution, linear layer or addition reads, and every tensor that one of them (with its
ReLU) produces, gets one quantiser; the logits stay in float. A layer left in float asks for none: it reads a quantised
tensor where another layer does, or where what produces it is quantised (ONNX Runtime runs no convolution as INT8 without).
"""

from torch import fx, nn

from stages.artifacts import QuantizerState
from stages.graph.trace import before_moves, is_add, is_relu, module_of, moves_only, only_user, trace
from stages.quantization.layers import QuantConv2d, QuantLinear
from stages.quantization.quantizers import ActivationQuantizer

PASS_SIGN = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
"""Modules whose output is non-negative where their input is."""


def insert_quantizers(network: nn.Module, image_shape: tuple[int, int, int], state: QuantizerState) -> fx.GraphModule:
    """Return the network with its layers replaced by quantised ones and a quantiser on every tensor between them.

    Args:
        network: A float network; its modules are shared with the result, so that it learns what the result learns.
        image_shape: (channels, height, width).
        state: Dialect to simulate, width of the weights and layers to leave in float.
    """
    traced = trace(network, image_shape)
    _replace_layers(traced, state)
    readers = [node for node in traced.graph.nodes if _computes(traced, node)]
    sources: dict[fx.Node, None] = {}
    for node in readers:
        sources |= dict.fromkeys(before_moves(traced, argument) for argument in node.args if isinstance(argument, fx.Node))
        end = _chain_end(traced, node)
        if not any(user.op == "output" for user in end.users):
            sources[before_moves(traced, end)] = None
    planned = [(source, _quantizer(traced, source, state)) for source in sources]  # before any insertion changes the graph
    for source, quantizer in planned:
        _insert_behind(traced, source, quantizer)
    traced.graph.lint()
    traced.recompile()
    return traced


def _replace_layers(traced: fx.GraphModule, state: QuantizerState) -> None:
    layers = [node for node in traced.graph.nodes if isinstance(module_of(traced, node), nn.Conv2d | nn.Linear)]
    for node in (node for node in layers if str(node.target) not in state.kept_float):
        module, after = module_of(traced, node), only_user(node)
        if isinstance(module, nn.Linear):
            traced.set_submodule(str(node.target), QuantLinear(module, state.weight_bits))
            continue
        assert isinstance(module, nn.Conv2d)
        bn = module_of(traced, after) if after is not None else None
        if after is not None and isinstance(bn, nn.BatchNorm2d):
            after.replace_all_uses_with(node)
            traced.graph.erase_node(after)
            traced.delete_submodule(str(after.target))
        traced.set_submodule(str(node.target), QuantConv2d(module, bn if isinstance(bn, nn.BatchNorm2d) else None, state.weight_bits))


def _quantizer(traced: fx.GraphModule, source: fx.Node, state: QuantizerState) -> ActivationQuantizer:
    return ActivationQuantizer(non_negative=_non_negative(traced, source), feeds_add=_is_fused_residual(traced, source), dialect=state.dialect)


def _insert_behind(traced: fx.GraphModule, source: fx.Node, quantizer: ActivationQuantizer) -> None:
    users = [user for user in source.users if user.op != "output"]
    name = f"quantize_{_unfolded(traced, source).name}"
    traced.add_module(name, quantizer)
    with traced.graph.inserting_after(source):
        node = traced.graph.call_module(name, (source,))
    for user in users:
        user.replace_input_with(source, node)


def _unfolded(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the convolution before the BatchNorm that quantising it would fold, so that names do not depend on what stays in float."""
    if not isinstance(module_of(traced, node), nn.BatchNorm2d):
        return node
    (before,) = node.all_input_nodes
    folds = isinstance(module_of(traced, before), nn.Conv2d) and only_user(before) is node
    return before if folds else node


def _computes(traced: fx.GraphModule, node: fx.Node) -> bool:
    return is_add(node) or isinstance(module_of(traced, node), QuantConv2d | QuantLinear)


def _chain_end(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the ReLU behind a node, if that alone reads it, or the node itself."""
    after = only_user(node)
    return after if after is not None and is_relu(traced, after) else node


def _non_negative(traced: fx.GraphModule, node: fx.Node) -> bool:
    if is_relu(traced, node):
        return True
    passes = isinstance(module_of(traced, node), PASS_SIGN) or moves_only(traced, node)
    return passes and isinstance(node.args[0], fx.Node) and _non_negative(traced, node.args[0])


def _is_fused_residual(traced: fx.GraphModule, source: fx.Node) -> bool:
    """Whether a convolution's output is only added, and is the first convolution that the addition reads."""
    user = only_user(source)
    if user is None or not is_add(user):
        return False
    inputs = [argument for argument in user.args[:2] if isinstance(argument, fx.Node)]
    convolutions = [i for i in inputs if isinstance(module_of(traced, i), QuantConv2d)]
    return convolutions[:1] == [source]
