"""Records facts about the values of a graph's nodes during a run in evaluation mode."""

from typing import Any, NamedTuple

import torch
from torch import fx

from bonsai.stages.graph.symbolic import has_hooks, is_leaf

TENSOR, IDENTITY, ACTIVATION = "tensor_meta", "identity", "activation"
"""Keys of a node: its tensor's `TensorMeta`, or a tuple of them; whether it returns its input in evaluation; whether it depends on the images."""


class TensorMeta(NamedTuple):
    """Shape and type of a tensor."""

    shape: torch.Size
    dtype: torch.dtype


@torch.no_grad()
def annotate(traced: fx.GraphModule, images: torch.Tensor) -> None:
    """Run a graph, which is in evaluation, and note what is known of every node's value."""
    _Noting(traced).run(images)


class _Noting(fx.Interpreter):
    """Runs a graph and takes notes; what a node raises is raised as it is."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note what is known of its value."""
        given = self.env.get(n.all_input_nodes[0]) if len(n.all_input_nodes) == 1 else None
        before = given.clone() if isinstance(given, torch.Tensor) else None
        result = super().run_node(n)
        n.meta.pop(TENSOR, None)
        noted = _meta_of(result)
        if noted is not None:
            n.meta[TENSOR] = noted
        n.meta[ACTIVATION] = noted is not None and (n.op == "placeholder" or any(each.meta[ACTIVATION] for each in n.all_input_nodes))
        n.meta[IDENTITY] = self._is_own(n) and before is not None and result is given and torch.equal(before, given)
        return result

    def _is_own(self, n: fx.Node) -> bool:
        """Whether a node calls a module that is called whole, and not one that torch's name says everything of."""
        module = self.module.get_submodule(str(n.target)) if n.op == "call_module" else None
        return module is not None and (has_hooks(module) or not is_leaf(module, str(n.target)))


def _meta_of(value: object) -> TensorMeta | tuple[Any, ...] | None:
    """Return what is noted of a tensor or a tuple that holds some; None for sizes and the like."""
    if isinstance(value, torch.Tensor):
        return TensorMeta(value.shape, value.dtype)
    if not isinstance(value, tuple | list) or isinstance(value, torch.Size):
        return None
    metas = tuple(_meta_of(each) for each in value)
    return metas if any(meta is not None for meta in metas) else None
