"""Size and work of a network."""

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights, biases and BatchNorm parameters; quantiser scales are not counted."""
    scales = {id(p) for m in network.modules() if getattr(m, "holds_scales", False) for p in m.parameters()}
    return sum(p.numel() for p in network.parameters() if id(p) not in scales)


@torch.no_grad()
def count_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of convolutions and linear layers for one image (c, h, w)."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):  # every input meets the weights once
            total += inputs[0][0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.shape[-1] * module.in_features

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, LAYERS)]
    hooks += [
        m.register_forward_hook(lambda layer, inputs, output: count(_inner(layer), inputs, output)) for m in network.modules() if hasattr(m, "weight_quantizer")
    ]
    training = network.training
    network.eval()(torch.zeros(1, *image_shape))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total


def _inner(layer: nn.Module) -> nn.Module:
    """Return the float layer inside a quantised one; its own forward is never called."""
    return next(child for child in layer.children() if isinstance(child, LAYERS))
