"""Follows the channels of a network through every operator of one forward pass."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from bonsai.stages.networks.attention import replaceable
from bonsai.stages.networks.calling import evaluating
from bonsai.stages.pruning.coupling.labels import OUTPUT
from bonsai.stages.pruning.coupling.recorder import IMAGES, Recorder
from bonsai.stages.pruning.coupling.rules import RULES, elementwise

UNREPLACED = "an nn.MultiheadAttention (call `replace_attention` before the optimizer is made)"
IRREPLACEABLE = "an nn.MultiheadAttention with add_bias_kv, add_zero_attn, hooks or a class of its own"
POINTWISE = {
    "where",
    "_prelu_kernel",
    "prelu",
    "hardtanh",
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "relu6",
    "lerp",
    "masked_fill",
    "copy_",
    "copy",
    "threshold",
    "clamp",
}


def follow(network: nn.Module, image_shape: tuple[int, ...]) -> Recorder:
    """Run a network once on zeros and return what is known of its channels.

    Args:
        network: It is left as it was.
        image_shape: (channels, ...) of one input.
    """
    at = Recorder(network)
    with evaluating(network), _named(network, at), following(at):
        found = network(torch.zeros(IMAGES, *image_shape))
    _keep_torchs_attention(network, at)
    for tensor in tree_flatten(found)[0]:
        if isinstance(tensor, torch.Tensor):
            for factor in at.factors(tensor):
                at.labels.tie(factor, OUTPUT)
    return at


@contextmanager
def following(at: Recorder) -> Iterator[None]:
    """Record the labels of everything that is computed meanwhile, without gradients; attention is computed by its products."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _slow_attention(), _Following(at):
        yield


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self, at: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._at = at

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        with torch.utils._python_dispatch._disable_current_modes():
            self._record(func, args, kwargs, out)
        return out

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        at, name = self._at, func._schema.name.partition("::")[2]
        outs = [out] if isinstance(out, torch.Tensor) else [each for each in out if isinstance(each, torch.Tensor)] if isinstance(out, tuple | list) else []
        operands = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        if not outs:
            return
        plain = name[:-1] if name.endswith("_") and name[:-1] in RULES else name
        if plain in RULES:
            found = RULES[plain](at, args, kwargs, out)
        elif torch.Tag.pointwise in func.tags or name in POINTWISE:
            found = elementwise(at, operands, outs[0])
            found = found if isinstance(out, torch.Tensor) else [found for _ in outs]
        else:
            for operand in operands:
                for factor in at.factors(operand):
                    at.fix(factor)
            at.unknown.update([name] if any(at.factors(operand) for operand in operands) else [])
            found = [] if isinstance(out, torch.Tensor) else [[] for _ in outs]
        if isinstance(out, torch.Tensor):
            at.note(out, found)
        else:
            for tensor, factors in zip([each for each in out if isinstance(each, torch.Tensor)], found, strict=False):
                at.note(tensor, factors)


@contextmanager
def _named(network: nn.Module, at: Recorder) -> Iterator[None]:
    """Let the recorder know which module runs."""
    stack: list[str] = []
    with ExitStack() as hooks:
        for name, module in network.named_modules():

            def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
                stack.append(name)
                at.module = name

            def leave(_module: nn.Module, args: Any, out: Any, name: str = name) -> None:
                stack.pop()
                at.called(name, args[0] if args else None, out)
                at.module = stack[-1] if stack else ""

            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield


def _keep_torchs_attention(network: nn.Module, at: Recorder) -> None:
    """Let everything stay that runs through attention of torch: it computes the width of a head from that of its inputs."""
    for name, module in network.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            at.unknown.add(UNREPLACED if replaceable(module) else IRREPLACEABLE)
            for tensor, _ in module.named_parameters(prefix=name):
                for factor in at.own.get(tensor, {}).values():
                    at.fix(factor)


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Let torch's own encoder layers run their plain path."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
