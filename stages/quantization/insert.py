"""Where quantisers go.

Every tensor that an INT8 operation reads, and every tensor that one of them (with its ReLU) produces, gets one
quantiser; the outputs stay in float. INT8 operations are convolutions, linear layers, additions, multiplications,
concatenations, average pooling, sigmoid gates, and a BatchNorm that no convolution takes in. A layer left in float asks for no
quantiser: it reads a quantised tensor where another operation does, or where what produces it is quantised (ONNX Runtime runs no
convolution as INT8 without).
"""

from torch import fx, nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.graph.parting import part_inputs
from bonsai.stages.graph.trace import lost_in_training, module_of, only_user, trace
from bonsai.stages.graph.values import ACTIVATION, TENSOR
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.packed_inputs import packed_form
from bonsai.stages.quantization.grids import form_of, grids, is_fused_in_trt, on_grid_already, tensors_to_quantize
from bonsai.stages.quantization.layers import BatchNorm
from bonsai.stages.quantization.quantizers import ActivationQuantizer, SameGrid
from bonsai.stages.quantization.rewrite import rewrite
from bonsai.stages.quantization.taking import calls_of, is_batch_norm_of, keep_in_float

QUANTIZERS = "quantizers"
"""Key of a graph's quantisers in its `meta`, which copies of the graph keep."""


def insert_quantizers(network: nn.Module, image_shape: tuple[int, ...], state: Quantizers) -> fx.GraphModule:
    """Return the network with its layers replaced by quantised ones and a quantiser on every tensor between them.

    Args:
        network: A float network; its modules are shared with the result, so that it learns what the result learns.
        image_shape: (channels, height, width).
        state: Dialect to simulate, width of the weights and layers to leave in float.

    Returns:
        A graph, which takes several inputs one by one where the network takes them joined: see `pack_again`.
    """
    traced, form = trace(network, image_shape), packed_form(network)
    if form is not None:
        part_inputs(traced, form)
    return quantise_graph(traced, state)


def quantise_graph(traced: fx.GraphModule, state: Quantizers) -> fx.GraphModule:
    """Do in place what `insert_quantizers` does, to a graph of `trace`.

    Raises:
        ConfigError: In training it does something else than its network, but for random numbers that it does not draw.
    """
    _require_training(traced)
    keep_in_float(traced, state.kept_float)
    rewrite(traced, state)
    tensors = tensors_to_quantize(traced)
    grid = grids(traced, tensors)
    planned: list[tuple[fx.Node, str, nn.Module]] = []  # before any insertion changes the graph
    made: dict[fx.Node, nn.Module] = {}
    for tensor in tensors:
        first, name = grid[tensor], f"quantize_{_unfolded(traced, grid[tensor]).name}"
        if on_grid_already(traced, tensor, grid):
            planned.append((tensor, f"same_grid_{tensor.name}", SameGrid(name)))
            continue
        if first not in made:
            form = form_of(traced, first)
            made[first] = ActivationQuantizer(
                non_negative=form.non_negative, highest=form.highest, fused_in_trt=is_fused_in_trt(traced, first), dialect=state.dialect
            )
        planned.append((tensor, name, made[first]))
    for tensor, name, module in planned:
        _insert_behind(traced, tensor, name, module)
    traced.graph.lint()
    traced.recompile()
    traced.meta[QUANTIZERS] = state
    return traced


def quantizers_of(network: nn.Module) -> Quantizers | None:
    """Return the quantisers of a network that `insert_quantizers` returned, or of a copy of it; None for any other."""
    found: Quantizers | None = network.meta.get(QUANTIZERS) if isinstance(network, fx.GraphModule) else None
    return found


def _insert_behind(traced: fx.GraphModule, source: fx.Node, name: str, module: nn.Module) -> None:
    users = [user for user in source.users if user.op != "output"]
    traced.add_module(name, module)
    with traced.graph.inserting_after(source):
        node = traced.graph.call_module(name, (source,))
    node.meta = {key: value for key, value in source.meta.items() if key in {TENSOR, ACTIVATION}}
    for user in users:
        user.replace_input_with(source, node)


def _unfolded(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the convolution before the BatchNorm that quantising it would fold, so that names do not depend on what stays in float."""
    if not isinstance(module_of(traced, node), BatchNorm):
        return node
    (before,) = node.all_input_nodes
    folds = is_batch_norm_of(traced, node, before) and only_user(before) is node and len(calls_of(traced, before)) == 1
    return before if folds else node


def _require_training(traced: fx.GraphModule) -> None:
    """Refuse a graph that quantisation-aware training would train as another network."""
    lost = lost_in_training(traced)
    if lost is not None and not lost.noise:
        raise ConfigError(
            describe(
                "the network cannot be quantised: in training it does something else than in evaluation, which no graph of it repeats",
                given=f"{type(traced).__name__}: self.training is asked in the forward of {', '.join(lost.by)}, or train() does more than torch's",
                allowed="modules of their own for what depends on the mode, without layers inside; dropout; noise in training",
                fix="move what asks self.training into a module of its own, or set the profile's target.precision to fp32",
            )
        )
