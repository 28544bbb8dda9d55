"""A long stage's own training checkpoints: written after every epoch, so that a killed run continues from the last."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stages.training.loop import Observer

PREFIX, OBSERVED = "weights.", "observed."


def optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's moments as ``<moment>.<parameter name>``."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    return {
        f"{moment}.{names[parameter]}": value.detach().contiguous()
        for parameter, state in optimizer.state.items()
        for moment, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimizer(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Give the optimizer the moments that `optimizer_tensors` returned."""
    parameters = dict(network.named_parameters())
    for key, value in tensors.items():
        moment, _, name = key.partition(".")
        like = parameters[name]
        same_layout = value.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
        optimizer.state[like][moment] = value.contiguous(memory_format=torch.channels_last) if same_layout else value


def save_progress(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer | None, facts: dict[str, Any]) -> None:
    """Write weights, moments, what the observer gathered and `facts` (JSON) as one file, published by one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {PREFIX + name: value.contiguous() for name, value in network.state_dict().items()}
    tensors |= optimizer_tensors(network, optimizer)
    tensors |= {OBSERVED + name: value for name, value in observer.state().items()} if observer else {}
    save_file(tensors, folder / "next.safetensors", metadata={"facts": json.dumps(facts)})
    os.replace(folder / "next.safetensors", folder / "last.safetensors")


def load_progress(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer | None) -> dict[str, Any] | None:
    """Restore network, optimizer and observer from the last finished epoch and return its facts, or None at a first start."""
    file = folder / "last.safetensors"
    if not file.exists():
        return None
    with safe_open(file, framework="pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118  # safe_open is no mapping
        facts: dict[str, Any] = json.loads(stream.metadata()["facts"])
    network.load_state_dict({key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)})
    restore_optimizer(network, optimizer, {key: value for key, value in tensors.items() if not key.startswith((PREFIX, OBSERVED))})
    if observer:
        observer.restore({key.removeprefix(OBSERVED): value for key, value in tensors.items() if key.startswith(OBSERVED)})
    return facts
