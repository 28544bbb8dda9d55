"""Size and work of a network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bonsai.stages.networks.calling import evaluating


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights, biases and BatchNorm parameters; quantiser scales are not counted."""
    scales = {id(p) for m in network.modules() if getattr(m, "holds_scales", False) for p in m.parameters()}
    return sum(p.numel() for p in network.parameters() if id(p) not in scales)


def count_macs(network: nn.Module, image_shape: tuple[int, ...]) -> int:
    """Return the multiply-accumulates of one image (c, h, w): of convolutions and matrix products, whatever module or function computes them."""
    with evaluating(network), torch.no_grad(), products_in_sight(network), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *image_shape))
    return int(counter.get_total_flops()) // 2


@contextmanager
def products_in_sight(network: nn.Module) -> Iterator[None]:
    """Compute attention and recurrent layers by the products that they consist of: torch's fused kernels show none, and would count as nothing."""
    fused, recurrent = torch.backends.mha.get_fastpath_enabled(), any(isinstance(module, nn.RNNBase) for module in network.modules())
    library = torch.backends.mkldnn.set_flags(_enabled=False) if recurrent else None  # type: ignore[no-untyped-call]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        if library is not None:
            torch.backends.mkldnn.set_flags(_enabled=library[0])  # type: ignore[no-untyped-call]
