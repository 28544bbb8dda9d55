"""Networks that take several inputs: copies of them take all inputs flattened and joined, (n, total).

So everything that calls a network, traces it or follows its channels sees one input. Engines do the same (`stages/backends/running.py`): their files
have the inputs one by one, and `parts_of` takes the joined ones apart.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from bonsai.stages.backends.running import parts_of
from bonsai.stages.networks.forms import Form
from bonsai.stages.tasks.task import TensorSpec

FORM = "_packed_form"
"""Attribute of a network that takes its inputs joined, and key in the `meta` of a graph that has them one by one."""
PART = "input_"
"""Prefix of the names of inputs that have none."""


def packed_shape(form: Form) -> tuple[int, ...]:
    """Return the shape of one sample: of the only input, or (total,) of several that are joined."""
    return form.shapes[0] if len(form.shapes) == 1 else (sum(map(math.prod, form.shapes)),)


def joined_inputs(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return inputs (n, ...) flattened and joined, (n, total); a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)


def pack_inputs(network: nn.Module, form: Form) -> nn.Module:
    """Let a network take its inputs joined, or as a tuple in the order of its form.

    Args:
        network: Its class is replaced by one of the same name, so that names of layers and parameters stay, and every copy does the same. A graph, whose
            copies would lose that, gets a wrapper.
        form: What it takes. A network that takes one tensor is returned as it is.
    """
    if form.kind == "tensor":
        return network
    if isinstance(network, fx.GraphModule):
        return Packed(network, form)
    kind = type(network)
    own: Any = kind.forward

    def forward(self: nn.Module, x: Any) -> Any:
        return _called(lambda *args, **named: own(self, *args, **named), x, form)

    body = {"forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    network.__class__ = type(kind.__name__, (kind,), body)
    setattr(network, FORM, form)
    return network


class Packed(nn.Module):
    """A graph that takes its inputs joined, or as a tuple in the order of its form.

    Args:
        graph: Takes them one by one.
        form: What it takes.
    """

    def __init__(self, graph: fx.GraphModule, form: Form) -> None:
        super().__init__()
        self.joining = graph  # the exporter leaves this name out of those of parameters
        self._packed_form = form

    def forward(self, x: Any) -> Any:
        """Map inputs (n, total) to what the graph returns."""
        return _called(self.joining, x, self._packed_form)


def _called(network: Any, x: Any, form: Form) -> Any:
    parts = list(x) if isinstance(x, tuple) else parts_of(x, form.shapes)
    return network(**dict(zip(form.keys, parts, strict=True))) if form.kind == "dict" else network(*parts)


def packed_form(network: nn.Module) -> Form | None:
    """Return the form of the inputs that a network takes joined, or None where it takes one tensor."""
    return vars(network).get(FORM)


def pack_again(graph: fx.GraphModule) -> nn.Module:
    """Return what takes the inputs of a graph joined whose inputs were parted; any other graph itself."""
    found = graph.meta.get(FORM)
    return graph if found is None else Packed(graph, found)


def input_specs(network: nn.Module) -> tuple[TensorSpec, ...]:
    """Return the inputs that an exported file of a network has, under names of no meaning; none where the network takes one tensor."""
    form = packed_form(network)
    return () if form is None else tuple(TensorSpec(f"{PART}{place}", shape) for place, shape in enumerate(form.shapes))
