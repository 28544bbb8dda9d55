"""What a network in hand returns: one tensor, a tuple or a dict of tensors. Everything that traces, exports or runs it sees them joined."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.graph.probes import noise_images
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.networks.calling import copy_network, evaluating
from bonsai.stages.networks.forms import Form, Kind
from bonsai.stages.networks.packed_inputs import Packed
from bonsai.stages.networks.several_outputs import named_outputs, select_outputs

ONLY = "output"
"""Key of the output of a network that returns one tensor."""
TRIED = 2
"""Number of samples that a network is run on to see what it returns."""


class Joined(nn.Module):
    """A network that returns its outputs flattened and joined, (n, total).

    Args:
        network: Returns several.
        form: What it returns.
    """

    def __init__(self, network: nn.Module, form: Form) -> None:
        super().__init__()
        self.joining = network  # the exporter leaves this name out of those of parameters
        self._form = form

    def forward(self, x: Any) -> torch.Tensor:
        """Map (n, ...) to (n, total), or to the only output as it is."""
        outputs: list[torch.Tensor] = self._form.tensors_in(self.joining(x))
        return outputs[0] if len(outputs) == 1 else torch.cat([output.flatten(1) for output in outputs], 1)


class InOrder(nn.Module):
    """A network that returns its outputs as a tuple, in the order of its form.

    Args:
        network: Returns several.
        form: What it returns.
    """

    def __init__(self, network: nn.Module, form: Form) -> None:
        super().__init__()
        self.joining = network  # as above
        self._form = form

    def forward(self, x: Any) -> tuple[torch.Tensor, ...]:
        """Map (n, ...), or a tuple of inputs, to outputs (n, ...)."""
        return tuple(self._form.tensors_in(self.joining(x)))


def output_form(network: nn.Module, shape: tuple[int, ...]) -> Form:
    """Return what a network on the CPU returns in evaluation.

    Raises:
        ConfigError: It does not run on samples of this shape, or returns something else than floating-point tensors (n, ...).
    """
    allowed = "a floating-point tensor (n, ...), or a tuple or dict of some"
    images = torch.from_numpy(noise_images(shape, TRIED))
    with (
        evaluating(network),
        torch.no_grad(),
        user_code(
            "the network does not run on the example input",
            given=f"{type(network).__name__} on {(TRIED, *shape)}",
            allowed="a batch that the network takes",
            fix="pass a batch of its own data",
        ),
    ):
        found = network(images)
    named = named_outputs(found)
    kind: Kind = "tensor" if named is None else "dict" if isinstance(found, Mapping) else "tuple"
    outputs = {ONLY: found} if named is None else named
    for name, output in outputs.items():
        if not isinstance(output, torch.Tensor) or not output.is_floating_point() or output.ndim < 2 or len(output) != TRIED:
            given = (
                f"{name}: {tuple(output.shape)} {output.dtype} for {TRIED} samples" if isinstance(output, torch.Tensor) else f"{name}: {type(output).__name__}"
            )
            fix = "return raw outputs from forward(), and decode them in `evaluate`"
            raise ConfigError(describe("the network returns something else than tensors of a batch", given=given, allowed=allowed, fix=fix))
    if not outputs:
        raise ConfigError(describe("the network returns nothing", given=type(found).__name__, allowed=allowed, fix="return its outputs from forward()"))
    return Form(kind, tuple(outputs), tuple(tuple(output.shape[1:]) for output in outputs.values()))


def join_outputs(network: nn.Module, form: Form) -> nn.Module:
    """Return the network itself where it returns one tensor, else one that returns them joined; names of layers stay, but for those of a graph."""
    if form.kind == "tensor":
        return network
    return Joined(network, form) if isinstance(network, fx.GraphModule | Packed) else select_outputs(copy_network(network), form.keys)


def separate_graph(traced: fx.GraphModule, form: Form) -> None:
    """Let the graph of a network whose outputs were joined return them as the network does, in place.

    Raises:
        ConfigError: The graph joins them in another way.
    """
    if form.kind == "tensor":
        return
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    joint = output.args[0]
    if len(form.keys) == 1:
        output.args = (form.arranged([joint]),)
        traced.recompile()
        return
    flat = joint.args[0] if isinstance(joint, fx.Node) and joint.args else ()
    if not isinstance(flat, tuple | list) or len(flat) != len(form.keys) or not all(isinstance(node, fx.Node) and node.all_input_nodes for node in flat):
        fix = "let forward() return one tensor, or quantise the part before the outputs"
        raise ConfigError(
            describe("the outputs of the network cannot be told apart in its graph", given=str(joint), allowed="outputs that are tensors", fix=fix)
        )
    output.args = (form.arranged([node.all_input_nodes[0] for node in flat]),)
    traced.graph.eliminate_dead_code()
    traced.recompile()


def as_arrays(found: object, form: Form) -> Any:
    """Return the tensors that a network returned as arrays, in the same way."""
    return form.arranged([np.asarray(output.detach().cpu().float().numpy()) for output in form.tensors_in(found)])
