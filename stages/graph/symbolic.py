"""The first way to a graph: torch.fx's symbolic tracer, which runs `forward` on placeholders that have no shape."""

from torch import fx, nn

RANDOM_BRANCHES = {"StochasticDepth", "DropPath"}
"""Classes, of torchvision and timm, that drop a whole branch in training alone."""


class _Tracer(fx.Tracer):
    """Leaves whole what is random in training: traced into, its present mode would be built in for good."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__name__ in RANDOM_BRANCHES or super().is_leaf_module(m, module_qualified_name)


def trace_symbolically(network: nn.Module) -> fx.GraphModule:
    """Return the graph of a network in its present mode; its own modules are shared, not copied.

    Its Python may raise anything where it needs more than a placeholder.
    """
    return fx.GraphModule(network, _Tracer().trace(network), type(network).__name__)


def is_leaf(module: nn.Module, name: str) -> bool:
    """Whether a module stays one node of the graph: one of torch's own, or what is random in training."""
    return _Tracer().is_leaf_module(module, name)
