"""torch.export for any number of images: `forward` runs on tensors without values, so that Python sees every shape."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn

from bonsai.stages.graph.untraceable import BATCH, Untraceable, explain
from bonsai.stages.imports.user_code import FAILURES
from bonsai.stages.memory import blame_memory

OF_THIS_PROCESS = ("stack_trace", "from_node", "nn_module_stack")
"""What torch notes of a node that may have paths of source files, or addresses in memory."""


def export_program(network: nn.Module, image_shape: tuple[int, ...], parts: Sequence[tuple[int, ...]] = ()) -> torch.export.ExportedProgram:
    """Export a network by running its Python; then, where that fails, by reading its bytecode, which alone keeps `len(images)` open.

    Args:
        network: Network, already in the mode to export.
        image_shape: (channels, height, width); branches on shapes are taken as these ask for.
        parts: Shapes of several inputs, which the network takes as a tuple instead.

    Raises:
        Untraceable: Its Python depends on values or on the number of images.
    """
    made = [torch.zeros(2, *shape) for shape in parts or (image_shape,)]  # a batch of 1 would be taken for a constant
    example = tuple(made) if parts else made[0]
    failed = []
    for strict in (False, True):
        try:
            with _quiet(), _without_idle_autocast():
                return torch.export.export(network, (example,), dynamic_shapes=any_batch(parts), strict=strict)
        except FAILURES as error:
            blame_memory(error)
            failed.append(error)
    reasons = [explain(error) for error in failed]
    raise Untraceable(reasons[1] if reasons[0].startswith(BATCH) else reasons[0]) from failed[0]


def any_batch(parts: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
    """Return the dynamic shapes of a network for any number of images; of one that takes a tuple of several inputs where `parts` names some."""
    free = {0: torch.export.Dim("batch")}
    return (tuple(free for _ in parts) if parts else free,)


def save_program(network: nn.Module, image_shape: tuple[int, ...], file: Path) -> None:
    """Write a network, in the mode it is in, as a program of torch.export's, for any number of images.

    The file has no example inputs and no places in source files: they would be of this machine, and differ from run to run.

    Args:
        network: Network, already in the mode to export.
        image_shape: (channels, height, width).
        file: The ``.pt2`` file to write.

    Raises:
        Untraceable: Its Python depends on values or on the number of images, or torch cannot write the program.
    """
    program, content = export_program(network, image_shape), BytesIO()
    program.example_inputs = None
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta = {key: value for key, value in node.meta.items() if key not in OF_THIS_PROCESS}
    try:
        with _quiet():
            torch.export.save(program, content)
    except FAILURES as error:
        blame_memory(error)
        raise Untraceable(explain(error)) from error
    file.write_bytes(content.getvalue())  # torch would tell of a full disk in words of its own


@contextmanager
def _without_idle_autocast() -> Iterator[None]:
    """Let `with torch.autocast(..., enabled=False)` do nothing meanwhile: nothing is cast here, and the export would set its region apart as a module."""
    enter, leave = torch.autocast.__enter__, torch.autocast.__exit__
    with (
        patch.object(torch.autocast, "__enter__", lambda self: enter(self) if self._enabled else self),  # type: ignore[no-untyped-call]  # torch leaves it untyped
        patch.object(torch.autocast, "__exit__", lambda self, *raised: leave(self, *raised) if self._enabled else None),
    ):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what torch prints of a failed attempt, whole graphs among it; the reason is in the error."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
