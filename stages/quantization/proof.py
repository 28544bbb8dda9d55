"""Whether a network that was rewritten for quantisation is still the same network, before anything is trained."""

import copy
from collections.abc import Iterable

import torch
from torch import fx, nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.graph.following import spread
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.graph.trace import lost_in_training, trace
from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.packed_inputs import pack_again
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import float_nodes, is_quantised, layers_to_keep
from bonsai.stages.quantization.layers import QuantConvolution
from bonsai.stages.quantization.quantizers import passing_through
from bonsai.stages.training.progress import say

SEEDS, SAMPLES = (1, 2), 8
TOLERANCE = 1e-3
"""Largest difference of two outputs, relative to how much they vary between images."""


def prove_quantizable(network: nn.Module, image_shape: tuple[int, ...], keep_float: Iterable[str], dialects: Iterable[Dialect]) -> tuple[str, ...]:
    """Put quantisers that pass their values on into a network, and compare it with the float one in evaluation.

    Two random states are compared, for batches of one and three images.

    Args:
        network: A float network; it is not changed.
        image_shape: (channels, height, width).
        keep_float: Globs of `quantize.keep_float`.
        dialects: Forms that the network may be exported in.

    Returns:
        What stays in float, with what it does, in the order of execution.

    Raises:
        ConfigError: The two differ, the network cannot be traced or trained as a graph, or nothing of it can be quantised.
    """
    network = copy.deepcopy(network)
    kept = layers_to_keep(network, keep_float, image_shape)
    lost = lost_in_training(trace(network, image_shape))
    if lost is not None and lost.noise:
        say(f"quantisation-aware training leaves out the noise that {', '.join(lost.by)} adds in training; evaluation is not touched")
    left: tuple[str, ...] = ()
    for dialect in dict.fromkeys(dialects):
        twin = copy.deepcopy(network)
        quantised = insert_quantizers(twin, image_shape, Quantizers(dialect=dialect, weight_bits=8, kept_float=kept))
        _require_layers(quantised, network)
        for seed in SEEDS:
            vary(twin, image_shape, seed)
            require_same(twin, pack_again(quantised), torch.randn(SAMPLES, *image_shape, generator=torch.Generator().manual_seed(seed)))
        left = tuple(node.described for node in float_nodes(quantised))
    return left


def require_same(network: nn.Module, quantised: nn.Module, images: torch.Tensor) -> None:
    """Compare a float network with its quantised form whose quantisers pass their values on, in evaluation, one image and three at a time.

    Args:
        network: The float network.
        quantised: Made of it, or of a copy with the same weights.
        images: (n, c, h, w) or (n, c, t) float32, three or more: how much their outputs vary is what a difference is measured by.

    Raises:
        ConfigError: They differ.
    """
    if _differ(network, quantised, images) and _differ_in_double(network, quantised, images):
        where = _first_difference(network, quantised, images)
        raise ConfigError(
            describe(
                "the network cannot be quantised: with quantisers put in that pass all values on, it computes something else",
                given=f"{type(network).__name__}{where}",
                allowed="a network that Bonsai's graph of it repeats exactly",
                fix="name the layers around that place in quantize.keep_float, or set the profile's target.precision to fp32",
            )
        )


@torch.no_grad()
def vary(network: nn.Module, image_shape: tuple[int, ...], seed: int) -> None:
    """Give a network a random state in place: other weights, and statistics of BatchNorm as images leave them, varied by channel."""
    generator = torch.Generator().manual_seed(seed)

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.add_(like(parameter) * (0.2 * parameter.square().mean().sqrt() + 0.01))
    training = network.training
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.train()
            for _ in range(2):
                network(torch.randn(SAMPLES, *image_shape, generator=generator))
    except FAILURES as error:
        blame_memory(error)
        # the statistics stay as they were: what does not run in training is told elsewhere
    network.train(training)
    buffers = dict(network.named_buffers())
    for name, buffer in buffers.items():
        if name.endswith("running_var"):
            mean = buffers.get(f"{name.removesuffix('running_var')}running_mean")
            if mean is not None:
                mean.add_(0.2 * like(mean) * buffer.abs().sqrt())
            buffer.mul_(torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype) + 0.5)


def _require_layers(quantised: fx.GraphModule, network: nn.Module) -> None:
    if not is_quantised(quantised):
        raise ConfigError(
            describe(
                "nothing of the network can be quantised",
                given=f"{type(network).__name__}: {', '.join(node.described for node in float_nodes(quantised)) or 'no layers'}",
                allowed="convolutions over one or two dimensions that pad with zeros, and linear layers",
                fix="set the profile's target.precision to fp32",
            )
        )


@torch.no_grad()
def _differ(network: nn.Module, quantised: nn.Module, images: torch.Tensor) -> bool:
    """Whether outputs differ by more than a share of how much they vary between images."""
    training = network.training, quantised.training
    with passing_through(quantised):
        network.eval(), quantised.eval()
        expected = network(images.clone())
        limit = TOLERANCE * spread(expected)
        differences = [float((quantised(part.clone()) - network(part.clone())).abs().max()) for part in (images[:1], images[:3])]
    network.train(training[0]), quantised.train(training[1])
    return not all(difference <= limit for difference in differences)  # so that NaN differs too


def _differ_in_double(network: nn.Module, quantised: nn.Module, images: torch.Tensor) -> bool:
    """Whether outputs differ where rounding counts for nothing: those of many untrained layers hardly vary beside what they have in common."""
    copies = [copy.deepcopy(each).double() for each in (network, quantised)]
    try:
        return _differ(copies[0], copies[1], images.double())
    except FAILURES as error:
        blame_memory(error)
        return True


@torch.no_grad()
def _first_difference(network: nn.Module, quantised: nn.Module, images: torch.Tensor) -> str:
    """Return the first node whose value differs, of those that both graphs have; nothing where the network is no graph."""
    if not isinstance(quantised, fx.GraphModule):
        return ""
    try:
        traced = trace(network, tuple(images.shape[1:]))
        with passing_through(quantised):
            values = [_Values(each.eval()).of(images[:3].clone()) for each in (traced, quantised)]
    except (ConfigError, *FAILURES) as error:
        blame_memory(error)
        return ""
    folding = {node.name for node in quantised.graph.nodes if node.op == "call_module" and _folds(quantised.get_submodule(str(node.target)))}
    for name, value in values[0].items():
        other = values[1].get(name)
        if name in folding or other is None or other.shape != value.shape:
            continue
        if not torch.allclose(other, value, rtol=0, atol=1e-3 * (spread(value) + 1e-3 * float(value.abs().max()))):
            return f": first at {name}"
    return ""


def _folds(module: nn.Module) -> bool:
    return isinstance(module, QuantConvolution) and module.bn is not None


class _Values(fx.Interpreter):
    """Runs a graph and keeps the tensors of its nodes."""

    def of(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return floating-point values by the name of their node."""
        self._kept: dict[str, torch.Tensor] = {}
        self.run(images)
        return self._kept

    def run_node(self, n: fx.Node) -> object:
        """Run a node and keep its value."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            self._kept[n.name] = value.clone()
        return value
