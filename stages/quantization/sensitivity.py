"""How much of a quantised network's error comes from each of its layers."""

from collections.abc import Callable

import torch
from torch import nn

from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.quantization.records import Sensitivity
from bonsai.stages.tasks.task import Learning
from bonsai.stages.training.progress import report

Layers = tuple[str, ...]
BATCH = 64


def scan_layers(
    names: Layers, in_float: Callable[[Layers], nn.Module], reference: nn.Module, images: torch.Tensor, learning: Learning
) -> tuple[Sensitivity, ...]:
    """Leave one layer after the other alone in float, and quantise it alone; return what was seen, the most sensitive layer first.

    A layer is ranked by the larger of the two: alone in float, one of several broken layers can gain nothing, since the others hide it.

    Args:
        names: The quantised layers.
        in_float: Returns the quantised network with these of them in float.
        reference: The float network.
        images: (n, c, h, w) float32 of the training split.
        learning: The task's, which measures the noise of outputs.
    """
    expected = _outputs(reference, images)

    def noise(layers: Layers) -> float:
        return learning.noise(_outputs(in_float(layers), images), expected)

    most, least = noise(()), noise(names)
    found = []
    for done, name in enumerate(names, 1):
        others = tuple(other for other in names if other != name)
        found.append(Sensitivity(layer=name, alone=noise(others) - least, gain=most - noise((name,))))
        report(f"sensitivity of {name}", done=done, total=len(names), unit="layer", alone=found[-1].alone, gain=found[-1].gain)
    return tuple(sorted(found, key=lambda one: -one.noise))


@torch.no_grad()
def _outputs(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    network.eval()
    return torch.cat([outputs_of(network, images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
