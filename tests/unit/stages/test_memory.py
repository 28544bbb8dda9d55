"""Memory that is full is never taken for a fault of the network, nor for an answer about it."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.program import export_program
from bonsai.stages.graph.randomness import require_repeatable
from bonsai.stages.graph.trace import trace
from bonsai.stages.memory import blame_memory, lacks_memory
from bonsai.stages.networks.calling import copy_network, outputs_of

SHAPE = (3, 8, 8)
STAGES = Path(__file__).parents[3] / "stages"
FULL = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 589824 bytes"


class Hungry(nn.Module):
    """Needs more memory than there is, in its forward and in its copy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(FULL)

    def __deepcopy__(self, memo: object) -> "Hungry":
        raise RuntimeError(FULL)


def caused(error: Exception) -> Exception:
    wrapped = BuildError("cannot build engine")
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (RuntimeError(FULL), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (caused(RuntimeError("std::bad_alloc")), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("memory allocated"), False),
    ],
)
def test_errors_say_whether_the_memory_is_full(error: Exception, lacks: bool) -> None:
    assert lacks_memory(error) is lacks
    if not lacks:
        blame_memory(error)
        return
    with pytest.raises(MemoryError):
        blame_memory(error)


@pytest.mark.parametrize(
    "ask",
    [
        lambda network: outputs_of(network, torch.zeros(1, *SHAPE)),
        copy_network,
        lambda network: trace(network, SHAPE),
        lambda network: export_program(network, SHAPE),
        lambda network: require_repeatable(network, SHAPE),
    ],
    ids=["run", "copy", "trace", "export", "repeat"],
)
def test_a_network_that_finds_no_memory_is_not_blamed(ask: Callable[[nn.Module], object]) -> None:
    with pytest.raises(MemoryError, match="can't allocate memory"):
        ask(Hungry())


def test_whoever_catches_all_that_a_users_code_raises_asks_for_memory_first() -> None:
    handlers = [
        (file.name, lines[index + 1].strip())
        for file in STAGES.rglob("*.py")
        for lines in [file.read_text(encoding="utf-8").splitlines()]
        for index, line in enumerate(lines)
        if line.strip().startswith("except") and "FAILURES" in line
    ]
    assert len(handlers) > 15
    assert [handler for handler in handlers if handler[1] != "blame_memory(error)"] == []
