"""Random numbers in a network: the same for two runs, and none in what is exported."""

import hashlib
import pickle
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.graph.program import export_program
from bonsai.stages.graph.untraceable import NOT_THE_NETWORKS, Untraceable
from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import evaluating

SAME = 1e-5
"""Largest difference between two runs of one network, relative to the largest output (fp32)."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the random numbers of a seed meanwhile, from torch, numpy and Python alike; afterwards go on as before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@torch.no_grad()
def drawn_by(module: nn.Module, tensor: torch.Tensor) -> tuple[str, ...]:
    """Return how far the sources of random numbers, set to one seed, are after a run of a module."""
    with seeded(0):
        module(tensor.clone())
        return drawn_so_far()


def drawn_so_far() -> tuple[str, ...]:
    """Return how far the sources of random numbers have come, as digests."""
    states = (pickle.dumps(random.getstate()), pickle.dumps(np.random.get_state()), torch.get_rng_state().numpy().tobytes())
    return tuple(hashlib.sha256(state).hexdigest() for state in states)


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Records every operator that draws random numbers while it is entered.

    Args:
        network: Whose modules are named.

    Attributes:
        found: What draws, and where: ``rand_like in middle (network.py, line 7)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._names = {id(module): name for name, module in network.named_modules()}
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and record it if it is random."""
        if is_random(func, args, kwargs or {}):
            self.found.append(f"{_operator(func)}{self._where()}")
        return func(*args, **(kwargs or {}))

    def _where(self) -> str:
        """Return the module that an operator was called in, and the line of the network's own code."""
        frame: FrameType | None = sys._getframe(2)
        module, line = "", ""
        while frame is not None:
            owner, file = frame.f_locals.get("self"), Path(frame.f_code.co_filename)
            if not module and isinstance(owner, nn.Module) and id(owner) in self._names:
                module = self._names[id(owner)] or type(owner).__name__
            if not line and file.exists() and not any(file.is_relative_to(folder) for folder in NOT_THE_NETWORKS):
                line = f" ({file.name}, line {frame.f_lineno})"
            if module:
                break
            frame = frame.f_back
        return f" in {module}{line}" if module else ""


@torch.no_grad()
def draws_of(network: nn.Module, images: torch.Tensor) -> tuple[str, ...]:
    """Return what draws random numbers in one run of a network in its present mode, and where."""
    with seeded(0), Draws(network) as draws:
        network(images.clone())
    return tuple(dict.fromkeys(draws.found))


def require_repeatable(network: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Refuse a network that draws random numbers in evaluation: what is exported or quantised of it would draw them too.

    Args:
        network: Network in any mode; it is run in evaluation mode.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: An operator that is random is part of the network, or two runs differ.
    """
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    with evaluating(network):
        try:
            draws = draws_of(network, images)
        except FAILURES as error:
            blame_memory(error)
            return  # whoever builds a network tells of one that does not run
        differs = _differs(network, images)
        if not differs and not (draws and _remains(network, image_shape)):
            return
    raise ConfigError(
        describe(
            "the network draws random numbers in evaluation, and so would its engine",
            given=", ".join(draws) or f"{type(network).__name__}: two runs on the same images differ; Python or numpy draws",
            allowed="random numbers in training alone",
            fix="ask `self.training` before drawing, or register what is drawn once as a buffer",
        )
    )


@torch.no_grad()
def _differs(network: nn.Module, images: torch.Tensor) -> bool:
    outputs = []
    for seed in (1, 2):
        with seeded(seed):
            outputs.append(network(images.clone()))
    first, second = outputs
    if not isinstance(first, torch.Tensor) or first.shape != second.shape:
        return False  # refused as what is no output
    return not torch.allclose(first, second, rtol=0, atol=SAME * float(first.abs().max()), equal_nan=True)


def _remains(network: nn.Module, image_shape: tuple[int, ...]) -> bool:
    """Whether the result of a random operator reaches the output of the exported network."""
    try:
        program = export_program(network, image_shape)
    except Untraceable:
        return True
    return any(is_random(node.target, node.args, node.kwargs) for node in _read(program.graph))


def _read(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that the output depends on."""
    found: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def is_random(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call draws random numbers: of an operator that torch marks so, unless it is told that it is not in training, or to drop nothing."""
    if not isinstance(operator, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    given = dict(zip((argument.name for argument in operator._schema.arguments), args, strict=False)) | dict(kwargs)
    modes = [given.get(argument.name, argument.default_value) for argument in operator._schema.arguments if argument.name in {"train", "training"}]
    shares = [given.get(argument.name, argument.default_value) for argument in operator._schema.arguments if argument.name in {"p", "dropout_p"}]
    return modes != [False] and shares != [0.0]


def _operator(func: Any) -> str:
    return str(getattr(func, "__name__", func)).partition(".")[0]
