"""Runs the network of a package in torch, with and without rounding, and keeps what each quantiser gave."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bonsai.pipeline.run.load import load
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.delivery.golden import read_golden
from bonsai.stages.explanation.errors import Simulated
from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.quantization.insert import quantizers_of
from bonsai.stages.quantization.quantizers import ActivationQuantizer, passing_through


@torch.no_grad()
def simulated_tensors(folder: Path) -> Simulated:
    """Run the golden inputs of a package through its network in torch.

    Args:
        folder: A package that `bonsai run` made; the class that its recipe names is imported.

    Raises:
        ConfigError: The package's network is not quantised, or cannot be built.
        VerificationError: The package is not as it was sealed, or does not hold the network.
    """
    network = load(folder).eval()
    if quantizers_of(network) is None:
        problem, fix = "--torch compares the fake-quantised network, and this one is in float", "leave out --torch: model.onnx is the network in float"
        raise ConfigError(describe(problem, given=folder, allowed="a package with an INT8 engine", fix=fix))
    images = torch.from_numpy(read_golden(folder)[0])
    found: dict[str, list[np.ndarray]] = {}
    calls: Counter[str] = Counter()
    hooks = [module.register_forward_hook(_keeping(name, found, calls)) for name, module in network.named_modules() if isinstance(module, ActivationQuantizer)]
    outputs = [outputs_of(network, image[None]).numpy() for image in images]
    for hook in hooks:
        hook.remove()
    with passing_through(network):
        in_float = [outputs_of(network, image[None]).numpy() for image in images]
    once = {name: np.stack(values) for name, values in found.items() if calls[name] == len(images)}
    return Simulated(once, np.concatenate(outputs), np.concatenate(in_float))


def _keeping(name: str, found: dict[str, list[np.ndarray]], calls: Counter[str]) -> Any:
    def keep(_: nn.Module, __: object, output: torch.Tensor) -> None:
        calls[name] += 1
        found.setdefault(name, []).append(output.numpy().copy())

    return keep
