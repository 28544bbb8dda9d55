"""A traced network in the terms of the quantiser: whatever is written in several ways becomes one module."""

from torch import fx, nn

from bonsai.stages.graph.kinds import is_activation, operation
from bonsai.stages.graph.restoring import replace_by_module
from bonsai.stages.graph.trace import argument, module_of, shape_of
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.layers import BatchNorm, Convolution, LoneBatchNorm, QuantConvolution, QuantLinear
from bonsai.stages.quantization.operations import AveragePool, GatedActivation, GlobalAverage
from bonsai.stages.quantization.taking import calls_of, folded_into, is_altered, is_kept, takes_batch_norm, takes_layer


def rewrite(traced: fx.GraphModule, state: Quantizers) -> None:
    """Replace layers by quantised ones, with their BatchNorm, and what is exported in a form of its own by modules that can be.

    A node that is marked as kept in float, and one that the quantiser does not take, stays as it is.
    """
    _replace_layers(traced, state)
    for node in list(traced.graph.nodes):
        if is_kept(node) or not _maps_activation(node):
            continue
        kind = operation(traced, node)
        if kind in {"silu", "hardswish"}:
            replace_by_module(traced, node, GatedActivation(kind, state.dialect))
        elif kind == "avg_pool2d" and (pool := _average_pool(traced, node)) is not None:
            replace_by_module(traced, node, AveragePool(pool, shape_of(node)[1], state.weight_bits))
        elif kind == "batch_norm" and _is_lone(traced, node):
            module = module_of(traced, node)
            traced.set_submodule(str(node.target), LoneBatchNorm(module, state.weight_bits))  # type: ignore[arg-type]  # as `_is_lone` says
        elif _averages_all(traced, node):
            _pool_globally(traced, node)
    traced.delete_all_unused_submodules()


def _replace_layers(traced: fx.GraphModule, state: Quantizers) -> None:
    for node in [node for node in traced.graph.nodes if not is_kept(node) and takes_layer(traced, node)]:
        module, name = module_of(traced, node), str(node.target)
        if isinstance(module, nn.Linear):
            traced.set_submodule(name, QuantLinear(module, state.weight_bits))
            continue
        if not isinstance(module, Convolution):
            continue  # replaced already, for an earlier call
        after = folded_into(traced, node)
        bn = None if after is None else module_of(traced, after)
        assert bn is None or isinstance(bn, BatchNorm)
        if after is not None:
            after.replace_all_uses_with(node)
            traced.graph.erase_node(after)
            traced.delete_submodule(str(after.target))
        traced.set_submodule(name, QuantConvolution(module, bn, state.weight_bits))


def _maps_activation(node: fx.Node) -> bool:
    return len(node.all_input_nodes) == 1 and is_activation(node.all_input_nodes[0])


def _is_lone(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a BatchNorm stays one: a convolution that is in float takes its own in, in the exported graph."""
    if not takes_batch_norm(traced, node):
        return False
    sources = [module_of(traced, call.all_input_nodes[0]) for call in calls_of(traced, node)]
    return not any(isinstance(source, Convolution) and not is_altered(source) for source in sources)


def _average_pool(traced: fx.GraphModule, node: fx.Node) -> nn.AvgPool2d | None:
    """Return the pooling that a node is, or None where its window follows from a tensor's size, or it pools no batch of images."""
    module = module_of(traced, node)
    if len(shape_of(node)) != 4:
        return None
    if isinstance(module, nn.AvgPool2d):
        return module
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    defaults = (None, None, 0, False, True, None)
    options = {name: argument(node, position + 1, name, default) for position, (name, default) in enumerate(zip(names, defaults, strict=True))}
    values = [each for value in options.values() for each in (value if isinstance(value, tuple | list) else (value,))]
    return None if any(isinstance(value, fx.Node) for value in values) else nn.AvgPool2d(**options)


def _averages_all(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node averages over the whole height and width, or over the whole time."""
    kind, module = operation(traced, node), module_of(traced, node)
    if kind in {"adaptive_avg_pool1d", "adaptive_avg_pool2d"}:
        size = argument(node, 1, "output_size", None) if module is None else module.output_size
        rank = int(kind[-2]) + 2
        return len(shape_of(node)) == rank and size in (1, (1,) * (rank - 2), [1] * (rank - 2))
    if kind != "mean":
        return False
    dims = argument(node, 1, "dim", ())
    if isinstance(dims, list | tuple) and not all(isinstance(dim, int) for dim in dims):
        return False
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
