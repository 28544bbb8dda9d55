"""Gives the graph of a network whose inputs were joined one placeholder for each input."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.backends.running import parts_of
from bonsai.stages.graph.values import ACTIVATION, IDENTITY, TENSOR, TensorMeta
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.packed_inputs import FORM, PART

SAMPLES = 2


def part_inputs(traced: fx.GraphModule, form: Form) -> None:
    """Replace the joined input of a graph by one input for each part, in place. A graph of one input stays.

    The nodes that take a part out of the joined input are known by what they compute of random numbers, whichever way led to the graph.

    Args:
        traced: From `trace`; its nodes are annotated.
        form: The inputs.

    Raises:
        ConfigError: Something else of the graph reads the joined input.
    """
    if form.kind == "tensor":
        return
    traced.meta[FORM] = form
    (joined,) = (node for node in traced.graph.nodes if node.op == "placeholder")
    random = torch.randn(SAMPLES, *joined.meta[TENSOR].shape[1:], generator=torch.Generator().manual_seed(0))
    parts = parts_of(random, form.shapes)
    with evaluating(traced), torch.no_grad():
        found = _Parts(traced, joined, parts).of(random)
    with traced.graph.inserting_before(joined):
        placed = [traced.graph.placeholder(key if form.kind == "dict" else f"{PART}{key}") for key in form.keys]
    for node, part in zip(placed, parts, strict=True):
        node.meta = {TENSOR: TensorMeta(part.shape, part.dtype), ACTIVATION: True, IDENTITY: False}
    for node, place in found.items():
        node.replace_all_uses_with(placed[place])
    traced.graph.eliminate_dead_code()
    if joined.users:
        problem, fix = "the inputs of the network cannot be told apart in its graph", "let forward() use each input by itself"
        raise ConfigError(describe(problem, given=", ".join(map(str, joined.users)), allowed="inputs that are tensors of their own", fix=fix))
    traced.graph.erase_node(joined)
    traced.graph.lint()
    traced.recompile()


class _Parts(fx.Interpreter):
    """Runs a graph, and finds the nodes that take a part out of its input.

    Args:
        traced: The graph.
        joined: Its input.
        parts: What the parts are of the input that it will be run on.
    """

    def __init__(self, traced: fx.GraphModule, joined: fx.Node, parts: Sequence[torch.Tensor]) -> None:
        super().__init__(traced)
        self._parts = parts
        self._whole = {joined}
        self._found: dict[fx.Node, int] = {}

    def of(self, joined: torch.Tensor) -> dict[fx.Node, int]:
        """Return the place of the part by node."""
        self.run(joined)
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and compare its value with the parts where it reads the joined input."""
        value = super().run_node(n)
        if n in self._whole or any(source in self._whole for source in n.all_input_nodes):
            same = [isinstance(value, torch.Tensor) and value.shape == part.shape and torch.equal(value, part) for part in self._parts]
            if any(same):
                self._found[n] = same.index(True)
                self._whole.discard(n)  # what reads a part computes with it: dropout of it is the same in evaluation alone
            else:
                self._whole.add(n)
        return value
