"""How much of a quantised network's error comes from each of its layers."""

from collections.abc import Callable

import torch
from torch import nn

from bonsai.stages.networks.calling import logits_of
from bonsai.stages.quantization.records import Sensitivity
from bonsai.stages.training.progress import report

Layers = tuple[str, ...]
BATCH = 64


def scan_layers(names: Layers, in_float: Callable[[Layers], nn.Module], reference: nn.Module, images: torch.Tensor) -> tuple[Sensitivity, ...]:
    """Leave one layer after the other alone in float, and quantise it alone; return what was seen, the most sensitive layer first.

    The noise of the logits needs no labels and does not jump where an image changes sides (its inverse is the measure of Pandey et al.,
    arXiv 2302.05397). A layer is ranked by the larger of the two: alone in float, one of several broken layers can gain nothing,
    since the others hide it.

    Args:
        names: The quantised layers.
        in_float: Returns the quantised network with these of them in float.
        reference: The float network.
        images: (n, c, h, w) float32 of the training split.
    """
    expected = _centred_logits(reference, images)

    def noise(layers: Layers) -> float:
        return float((_centred_logits(in_float(layers), images) - expected).square().mean() / expected.square().mean())

    most, least = noise(()), noise(names)
    found = []
    for done, name in enumerate(names, 1):
        others = tuple(other for other in names if other != name)
        found.append(Sensitivity(layer=name, alone=noise(others) - least, gain=most - noise((name,))))
        report(f"sensitivity of {name}", done=done, total=len(names), unit="layer", alone=found[-1].alone, gain=found[-1].gain)
    return tuple(sorted(found, key=lambda one: -one.noise))


@torch.no_grad()
def _centred_logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return logits (n, classes) less their mean per image, which no softmax sees."""
    network.eval()
    logits = torch.cat([logits_of(network, images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
    return logits - logits.mean(1, keepdim=True)
