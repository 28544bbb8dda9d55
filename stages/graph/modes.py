"""Training and evaluation: who asks which of them it is in."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bonsai.stages.graph.symbolic import is_leaf
from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory


@torch.no_grad()
def askers_of(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """Return the modules of the network's own classes whose forward asks for its mode, the inner ones first.

    Args:
        network: Run once in either mode, on a copy.
        images: (n, c, h, w) float32.

    Returns:
        By name, what each was called with first, if that was one tensor and a tensor came back; None otherwise. The network
        itself is named by an empty text.
    """
    network = copy.deepcopy(network)
    names = {id(module): name for name, module in network.named_modules()}
    inputs: dict[str, torch.Tensor] = {}

    def remember(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        if len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
            inputs.setdefault(names[id(module)], args[0].clone())

    for name, module in network.named_modules():
        if name and not is_leaf(module, name):
            module.register_forward_hook(remember, with_kwargs=True)
    asked: set[int] = set()
    for training in (False, True):
        network.train(training)
        try:
            with _told(asked):
                network(images.clone())
        except FAILURES as error:
            blame_memory(error)
            continue  # what does not run in a mode is told by whoever compares the modes
    found = [name for name, module in network.named_modules() if id(module) in asked and not (name and is_leaf(module, name))]
    return {name: inputs.get(name) for name in reversed(found)}


@contextmanager
def _told(asked: set[int]) -> Iterator[None]:
    """Collect the modules that are asked for their mode; a property of a class comes before what an instance holds."""

    def read(module: nn.Module) -> bool:
        try:
            mode: bool = vars(module)["training"]
        except KeyError:  # as of a scripted module, which keeps it elsewhere
            raise AttributeError("training") from None
        asked.add(id(module))
        return mode

    def write(module: nn.Module, mode: bool) -> None:
        vars(module)["training"] = mode

    nn.Module.training = property(read, write)  # type: ignore[assignment]  # taken away again below
    try:
        yield
    finally:
        del nn.Module.training
