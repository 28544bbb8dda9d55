"""A traced network in the terms of the quantiser: whatever is written in several ways becomes one module."""

from torch import fx, nn

from stages.artifacts import QuantizerState
from stages.graph.kinds import operation
from stages.graph.trace import argument, module_of, only_user, replace_by_module, shape_of
from stages.quantization.layers import LoneBatchNorm, QuantConv2d, QuantLinear
from stages.quantization.operations import AveragePool, GatedActivation, GlobalAverage


def rewrite(traced: fx.GraphModule, state: QuantizerState) -> None:
    """Replace layers by quantised ones, with their BatchNorm, and what is exported in a form of its own by modules that can be."""
    _replace_layers(traced, state)
    for node in list(traced.graph.nodes):
        kind = operation(traced, node)
        if kind in {"silu", "hardswish"}:
            replace_by_module(traced, node, GatedActivation(kind, state.dialect))
        elif kind == "avg_pool2d":
            replace_by_module(traced, node, AveragePool(_average_pool(traced, node), shape_of(node)[1], state.weight_bits))
        elif kind == "batch_norm" and _is_lone(traced, node):
            replace_by_module(traced, node, LoneBatchNorm(module_of(traced, node), state.weight_bits))  # type: ignore[arg-type]  # as `_is_lone` says
        elif _averages_all(traced, node):
            _pool_globally(traced, node)
    traced.delete_all_unused_submodules()


def _replace_layers(traced: fx.GraphModule, state: QuantizerState) -> None:
    layers = [node for node in traced.graph.nodes if isinstance(module_of(traced, node), nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    for node in (node for node in layers if str(node.target) not in state.kept_float):
        module, after = module_of(traced, node), only_user(node)
        if isinstance(module, nn.Linear):
            traced.set_submodule(str(node.target), QuantLinear(module, state.weight_bits))
            continue
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or module.padding_mode != "zeros":
            continue  # replaced already, for an earlier call; or padded in a way that no INT8 kernel pads
        bn = module_of(traced, after) if after is not None else None
        if after is not None and isinstance(bn, nn.BatchNorm2d) and _is_affine(bn):
            after.replace_all_uses_with(node)
            traced.graph.erase_node(after)
            traced.delete_submodule(str(after.target))
            traced.set_submodule(str(node.target), QuantConv2d(module, bn, state.weight_bits))
        else:
            traced.set_submodule(str(node.target), QuantConv2d(module, None, state.weight_bits))


def _is_affine(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    """Whether a BatchNorm is one factor and one summand per channel in evaluation, and both are learned."""
    return bn.affine and bn.running_mean is not None


def _is_lone(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a BatchNorm stays one: a convolution that is kept in float takes its own in, in the exported graph."""
    module = module_of(traced, node)
    convolved = isinstance(module_of(traced, node.all_input_nodes[0]), nn.Conv2d | nn.ConvTranspose2d)
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and _is_affine(module) and not convolved


def _average_pool(traced: fx.GraphModule, node: fx.Node) -> nn.AvgPool2d:
    module = module_of(traced, node)
    if isinstance(module, nn.AvgPool2d):
        return module
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    defaults = (None, None, 0, False, True, None)
    options = {name: argument(node, position + 1, name, default) for position, (name, default) in enumerate(zip(names, defaults, strict=True))}
    return nn.AvgPool2d(**options)


def _averages_all(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node averages over the whole height and width."""
    kind, module = operation(traced, node), module_of(traced, node)
    if kind == "adaptive_avg_pool2d":
        size = module.output_size if isinstance(module, nn.AdaptiveAvgPool2d) else argument(node, 1, "output_size", None)
        return size in (1, (1, 1), [1, 1])
    if kind != "mean":
        return False
    dims = argument(node, 1, "dim", ())
    rank = len(shape_of(node.all_input_nodes[0]))
    return rank == 4 and isinstance(dims, list | tuple) and sorted(dim % rank for dim in dims) == [2, 3]


def _pool_globally(traced: fx.GraphModule, node: fx.Node) -> None:
    squeezed = len(shape_of(node)) == 2
    pooled = replace_by_module(traced, node, GlobalAverage())
    if squeezed:
        users = list(pooled.users)
        with traced.graph.inserting_after(pooled):
            flat = traced.graph.call_method("flatten", (pooled, 1))
        flat.meta = dict(pooled.meta)
        for user in users:
            user.replace_input_with(pooled, flat)
