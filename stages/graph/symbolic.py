"""The first way to a graph: torch.fx's symbolic tracer, which runs `forward` on placeholders that have no shape."""

from collections.abc import Collection

from torch import fx, nn

from bonsai.stages.networks.attention import Attention

HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class _Tracer(fx.Tracer):
    """Leaves some modules whole, and all of torch's own, other than an encoder whose attention was replaced.

    Args:
        whole: Modules that are one node of the graph each.
    """

    def __init__(self, whole: Collection[nn.Module]) -> None:
        super().__init__()
        self._whole = {id(module) for module in whole}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = super().is_leaf_module(m, module_qualified_name) and not any(isinstance(each, Attention) for each in m.modules())
        return id(m) in self._whole or own


def trace_symbolically(network: nn.Module, whole: Collection[nn.Module] = ()) -> fx.GraphModule:
    """Return the graph of a network in its present mode; its own modules are shared, not copied.

    Its Python may raise anything where it needs more than a placeholder.

    Args:
        network: Network to trace.
        whole: Modules that are called as they are.
    """
    return fx.GraphModule(network, _Tracer(whole).trace(network), type(network).__name__)


def is_leaf(module: nn.Module, name: str, whole: Collection[nn.Module] = ()) -> bool:
    """Whether a module stays one node of the graph: one of torch's own, or one of those that are called whole."""
    return _Tracer(whole).is_leaf_module(module, name)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of a module does more than its forward says: hooks, as of `torch.nn.utils.weight_norm`, run before or after it."""
    return any(getattr(module, hooks, None) for hooks in HOOKS)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of a module does what torch's own class does: no hooks, and no forward of another class or of its own."""
    return isinstance(module, kind) and type(module).forward is kind.forward and "forward" not in vars(module) and not has_hooks(module)
