"""The convolutions and matrix products that every node of a traced network computes, whatever module or function they are written in.

One run of the graph records them, with the labels of the channels that they read and write (`stages/pruning/coupling/labels.py`).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bonsai.stages.networks.calling import evaluating
from bonsai.stages.networks.counting import products_in_sight
from bonsai.stages.pruning.coupling.following import following
from bonsai.stages.pruning.coupling.labels import Factor
from bonsai.stages.pruning.coupling.recorder import Recorder

BATCH = 2
"""Number of images that are recorded together. A tensor that does not grow with it does not belong to one image."""


@dataclass(frozen=True)
class Product:
    """One convolution or matrix product, as ATen computes it for a batch of `BATCH` images.

    Attributes:
        name: ATen's, such as ``convolution``, ``addmm`` or ``bmm``.
        operands: Shapes of the tensors that it multiplies: an input and its weight, or two matrices.
        output: Shape of the result.
        arguments: What a convolution is called with behind its bias: stride, padding, dilation, transposed, output padding and groups.
        macs: Multiply-accumulates for the batch.
        factors: Labels of both operands and of the result.
    """

    name: str
    operands: tuple[tuple[int, ...], tuple[int, ...]]
    output: tuple[int, ...]
    arguments: tuple[Any, ...]
    macs: int
    factors: tuple[list[Factor], list[Factor], list[Factor]]


class Recorded(NamedTuple):
    """What one run of a graph tells.

    Attributes:
        products: What each node multiplies, in order.
        factors: Labels of each node's tensor.
    """

    products: dict[fx.Node, list[Product]]
    factors: dict[fx.Node, list[Factor]]


def record_products(traced: fx.GraphModule, network: nn.Module, image_shape: tuple[int, ...], at: Recorder) -> Recorded:
    """Run a traced network once and return the products that it computes.

    Args:
        traced: The graph.
        network: Whose modules it calls; in evaluation meanwhile.
        image_shape: (channels, height, width).
        at: Follows the labels of the network's parameters.
    """
    with evaluating(network), evaluating(traced), products_in_sight(network), following(at):
        run = _Run(traced, at)
        run.run(torch.zeros(BATCH, *image_shape))
    return Recorded(run.products, run.factors)


class _Run(fx.Interpreter):
    """Computes a graph node by node, and keeps what it multiplies and what is known of its result."""

    def __init__(self, traced: fx.GraphModule, at: Recorder) -> None:
        super().__init__(traced)
        self.products: dict[fx.Node, list[Product]] = {}
        self.factors: dict[fx.Node, list[Factor]] = {}
        self._at = at

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node."""
        if n.op not in {"call_module", "call_function", "call_method"}:
            return super().run_node(n)
        called = [str(n.target)] if n.op == "call_module" else [name for name, _ in (n.meta.get("nn_module_stack") or {}).values()]
        self._at.module = called[-1] if called else ""  # some rules ask it for the sizes of a split
        with _Multiplied(self._at) as multiplied:
            result = super().run_node(n)
        if multiplied.found:
            self.products[n] = multiplied.found
        if isinstance(result, torch.Tensor):
            self.factors[n] = self._at.factors(result)
        return result


class _Multiplied(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Keeps what `FlopCounterMode` would count, with the shapes and the labels."""

    def __init__(self, at: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Product] = []
        self._at = at

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Compute one operator; torch has taken composed ones apart before."""
        options, packet = kwargs or {}, func.overloadpacket
        result = func(*args, **options)
        if packet in flop_registry:
            self.found.append(_product(packet, args, options, result, self._at))
        return result


def _product(packet: Any, args: tuple[Any, ...], options: dict[str, Any], result: Any, at: Recorder) -> Product:
    name = packet.__name__
    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    first = 1 if name in {"addmm", "baddbmm"} else 0  # behind what is added
    operands = tensors[first : first + 2]
    shapes = tuple(tuple(each.shape) for each in operands)
    labels = [at.factors(each) if isinstance(each, torch.Tensor) else [] for each in (*operands, result)]
    return Product(
        name=name,
        operands=shapes if len(shapes) == 2 else ((), ()),
        output=tuple(result.shape) if isinstance(result, torch.Tensor) else (),
        arguments=tuple(args[3:]) if name == "convolution" else (),
        macs=int(flop_registry[packet](*args, **options, out_val=result)) // 2,
        factors=(labels[0], labels[1], labels[2]) if len(shapes) == 2 else ([], [], []),
    )
