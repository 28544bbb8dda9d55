"""`import torchvision` beside a CPU torch, here and in every user's file (timm imports it too).

The package index has torchvision as a CUDA build, whose compiled operators do not load beside the CPU build of torch. Its Python code works,
but its import ends with `operator torchvision::nms does not exist`. The finder below declares what the import asks for, and gives `nms`
an implementation. Nothing changes where the compiled operators load, and nothing is imported before somebody imports torchvision.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE, OPERATORS = "torchvision", "torchvision.extension"
SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_LIBRARIES: list[Any] = []
"""Keeps a reference to the library; without one, torch removes its operators again."""


class TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where Python would, and acts after `torchvision.extension` has tried to load the compiled operators."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of the package or of its operators, with something to do after its import; None for every other module."""
        if fullname not in (PACKAGE, OPERATORS):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        if fullname == PACKAGE and OPERATORS in sys.modules:  # an earlier import ended halfway
            _declare(sys.modules[OPERATORS])
        _then(spec.loader, _declare if fullname == OPERATORS else _pretend)
        return spec


def install() -> None:
    """Add the finder to this process, once."""
    if not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())


def _then(loader: Any, act: Callable[[ModuleType], None]) -> None:
    """Let a loader do something with the module that it has executed."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        act(module)

    loader.exec_module = exec_module


def _declare(operators: ModuleType) -> None:
    """Declare the operators that the import of torchvision asks for, unless the compiled ones are there or somebody else has declared them."""
    if operators._has_ops():
        return
    import torch  # not before somebody imports torchvision, which imports it too

    from bonsai.stages.networks.suppression import nms

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    _LIBRARIES.append(library)
    for schema in SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)  # type: ignore[no-untyped-call]
    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        library.impl("nms", nms, "CPU")  # type: ignore[no-untyped-call]


def _pretend(package: ModuleType) -> None:
    """Let torchvision call `nms`: it asks whether the compiled operators are there before every call."""
    if not package.extension._has_ops():
        package.extension._has_ops = lambda: True
