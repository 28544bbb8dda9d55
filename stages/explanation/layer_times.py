"""The time of each layer, by the runtime's own profile on the engine's device."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx

from bonsai.stages.backends.device import KernelTime
from bonsai.stages.explanation.faults import Fault
from bonsai.stages.explanation.layers import MOVED, Graph, Layer
from bonsai.stages.explanation.probing import assign

CONVERSIONS = MOVED | {"Concat", "DequantizeLinear", "Gather", "MaxPool", "NhwcMaxPool", "QuantizeLinear", "Reorder", "ReorderInput", "ReorderOutput"}
CONVERSIONS |= {"Resize", "Shape"}
"""Kernels that round, move or select values, whatever they are of."""
STANDS_OUT, WORTH_A_TRY = 0.25, 0.1
"""Shares of the engine's time that a layer must cost too much to stand out, or to be worth a word."""
TIMES = 1.5
"""Smallest number of times as long as elsewhere that such a layer takes."""


class LayerTime(NamedTuple):
    """How long a layer takes.

    Attributes:
        microseconds: Of all its kernels.
        kernels: Their kinds, in order.
        in_float: Kinds of those that compute in float.
    """

    microseconds: float = 0.0
    kernels: tuple[str, ...] = ()
    in_float: tuple[str, ...] = ()


def times_by_layer(kernels: Sequence[KernelTime], layers: Mapping[str, str]) -> dict[str, LayerTime]:
    """Return the times of the kernels' layers.

    Args:
        kernels: Of one engine.
        layers: Layer by the name of a kernel; a kernel of no layer counts to the one before it.
    """
    found: dict[str, LayerTime] = {}
    last = next(iter(layers.values()), "")
    for kernel in kernels:
        last = layers.get(kernel.name, last)
        own = found.get(last, LayerTime())
        floats = (kernel.op,) if kernel.precision == "float" and kernel.op not in CONVERSIONS else ()
        found[last] = LayerTime(own.microseconds + kernel.microseconds, (*own.kernels, kernel.op), (*own.in_float, *floats))
    return found


def layers_by_kernel(model: onnx.ModelProto, layers: Sequence[Layer], kernels: Sequence[KernelTime]) -> dict[str, str]:
    """Return the layer of each kernel of a runtime that names kernels by the nodes or tensors of the ONNX file, as OpenVINO does.

    Args:
        model: The ONNX file.
        layers: Its layers.
        kernels: The runtime's.
    """
    graph = Graph(model)
    tensors = {name: layer.name for layer in layers for name in (*layer.read_as, layer.unrounded)}
    nodes = assign(graph, tensors, {layer.node: layer.name for layer in layers})
    known = {**{name: nodes[node.name] for node in graph.nodes for name in node.output if graph.is_live(name)}, **nodes}
    found = {}
    for kernel in kernels:
        layer = known.get(kernel.name) or known.get(kernel.name.split("/")[0])
        if layer is not None:
            found[kernel.name] = layer
    return found


def too_long(layer: str, here: Mapping[str, LayerTime], elsewhere: Mapping[str, LayerTime], where: str, share: float = STANDS_OUT) -> Fault | None:
    """Return that a layer takes much longer than in another engine, where that costs much of the engine's time.

    Args:
        layer: Name of the layer.
        here: Times of the engine that is explained.
        elsewhere: Times of the other engine.
        where: The other engine, in words.
        share: Smallest share of the engine's time that the difference must be.
    """
    if layer not in here or layer not in elsewhere:
        return None
    ours, theirs, total = here[layer].microseconds, elsewhere[layer].microseconds, sum(each.microseconds for each in here.values())
    if ours - theirs < share * total or ours < TIMES * theirs:
        return None
    return Fault("slow", f"it takes {ours:.0f} us, {ours / max(theirs, 0.1):.1f} times as long as {where} ({theirs:.0f} us): {ours / total:.0%} of the engine")


def in_float(layer: str, here: Mapping[str, LayerTime], share: float = STANDS_OUT) -> Fault | None:
    """Return that a layer of an INT8 engine computes in float, where that costs much of the engine's time."""
    own, total = here.get(layer, LayerTime()), sum(each.microseconds for each in here.values())
    if not own.in_float or own.microseconds < share * total:
        return None
    kernels = ", ".join(dict.fromkeys(own.in_float))
    return Fault("float", f"it computes in float ({kernels}) amid INT8: {own.microseconds:.0f} us, {own.microseconds / total:.0%} of the engine")
