"""Plants one fault in a package of an INT8 engine for ONNX Runtime: in its model.onnx, from which the engine is built anew, or in the engine alone."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_package import reseal

from bonsai.stages.backends.registry import backend_of
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.explanation.layers import Graph, Layer, layers_of
from bonsai.stages.graph.shielding import shield_float_layers

Draw = np.random.Generator
WEIGHT, SCALE, BIAS, OUTPUT_SCALE, OUTPUT_ZERO_POINT = 3, 4, 8, 6, 7
"""Inputs of a QLinearConv."""


class Planted(NamedTuple):
    """A fault, as an explanation must name it."""

    layer: str
    kind: str
    place: str


class Case(NamedTuple):
    """A kind of fault, and where it is planted."""

    kind: str
    place: str


def plant(folder: Path, case: Case, draw: Draw) -> Planted:
    """Plant a fault in a drawn layer of a package, and seal it again."""
    model, engine = onnx.load(folder / "model.onnx"), onnx.load(folder / "engine.onnx")
    layers = layers_of(Graph(model))
    if case.place == "engine":
        layer = _ENGINE[case.kind](engine, layers, draw)
    else:
        layer = _FILE[case.kind](model, layers, draw)
        manifest = read_intact(folder)
        onnx.save(model, folder / "model.onnx")
        backend_of(manifest.profile.target).build(folder / "model.onnx", folder / "engine.onnx", manifest.profile.target, manifest.engine.image_shape)
        engine = onnx.load(folder / "engine.onnx")
    onnx.save(engine, folder / "engine.onnx")
    reseal(folder)
    return Planted(layer, *case)


def _own(model: onnx.ModelProto, node: onnx.NodeProto, place: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give a node a constant of its own in place of one that others may read too."""
    (tensor,) = [each for each in model.graph.initializer if each.name == node.input[place]]
    value = numpy_helper.to_array(tensor)
    changed = np.asarray(change(value.copy()), dtype=value.dtype)
    assert changed.shape == value.shape
    name = f"{node.input[place]}.planted"
    while any(each.name == name for each in model.graph.initializer):
        name += "+"
    model.graph.initializer.append(numpy_helper.from_array(changed, name))
    node.input[place] = name


def _change(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a constant for all that read it."""
    (tensor,) = [each for each in model.graph.initializer if each.name == name]
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(value.copy()), dtype=value.dtype), name))


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (node,) = [each for each in model.graph.node if each.name == name]
    return node


def _value(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == name)


def _times(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda value: value * np.float32(factor)


def _few_bits(draw: Draw) -> Callable[[np.ndarray], np.ndarray]:
    step = 2 ** int(draw.integers(4, 7))
    return lambda value: np.clip(np.round(value.astype(np.float32) / step) * step, -127 // step * step + step, 127 // step * step)


def _other_order(draw: Draw) -> Callable[[np.ndarray], np.ndarray]:
    def change(value: np.ndarray) -> np.ndarray:
        order = np.arange(len(value))
        chosen = draw.choice(len(value), size=min(len(value), int(draw.integers(2, 9))), replace=False)
        order[chosen] = np.roll(chosen, 1)
        return value[order]

    return change


def _lost(value: np.ndarray) -> np.ndarray:
    return np.zeros_like(value)


def _shifted(draw: Draw) -> Callable[[np.ndarray], np.ndarray]:
    by = int(draw.integers(8, 60))
    return lambda value: np.where(value.astype(int) + by > 255, value.astype(int) - by, value.astype(int) + by)


# --- in model.onnx ---


def _weighted(layers: tuple[Layer, ...], draw: Draw) -> Layer:
    return layers[int(draw.choice([place for place, layer in enumerate(layers) if layer.weight]))]


def _of_weights(model: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw, place: int, change: Callable[[np.ndarray], np.ndarray]) -> str:
    layer, graph = _weighted(layers, draw), Graph(model)
    _change(model, graph.producers[_node(model, layer.node).input[1]].input[place], change)
    return layer.name


def _of_output(model: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw, place: int, change: Callable[[np.ndarray], np.ndarray]) -> str:
    graph = Graph(model)
    roundings = {layer.name: graph.readers[layer.unrounded][0] for layer in layers if layer.is_quantised}
    grids = {node.input[1]: name for name, node in reversed(roundings.items())}  # of several layers on one grid it is the first's
    chosen = list(grids.values())[int(draw.integers(len(grids)))]
    layer = next(each for each in layers if each.name == chosen)
    if place == 1:
        _change(model, roundings[layer.name].input[1], change)
    else:  # a zero-point is that of many layers
        for node in (roundings[layer.name], *(graph.producers[name] for name in layer.read_as)):
            _own(model, _node(model, node.name), place, change)
    return layer.name


def _bias_lost(model: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw) -> str:
    layer = _weighted(layers, draw)
    node, graph = _node(model, layer.node), Graph(model)
    if node.input[2] in graph.producers:
        _change(model, graph.producers[node.input[2]].input[0], _lost)
    else:
        _change(model, node.input[2], _lost)
    return layer.name


def _in_float(model: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw) -> str:
    inner = [layer for layer in layers if layer.op == "Conv"][1:]
    layer, graph = inner[int(draw.integers(len(inner)))], Graph(model)
    node = _node(model, layer.node)
    restoring = graph.producers[node.input[1]]
    weight, scale = _value(model, restoring.input[0]), _value(model, restoring.input[1])
    model.graph.node.remove(restoring)
    model.graph.initializer.remove(next(each for each in model.graph.initializer if each.name == layer.weight))
    floats = weight.astype(np.float32) * scale.reshape(-1, *[1] * (weight.ndim - 1))
    model.graph.initializer.append(numpy_helper.from_array(floats, layer.weight))
    node.input[1] = layer.weight
    assert shield_float_layers(model)
    return layer.name


def _extra_layer(model: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw) -> str:
    """Put a wide convolution that changes nothing before a layer's rounding."""
    places = [layer for layer in layers if layer.op == "Conv" and layer.is_quantised]
    layer = places[int(draw.integers(len(places)))]
    rounding = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == layer.unrounded)
    channels = len(_value(model, layer.weight))
    weight = np.zeros((channels, channels, 7, 7), np.float32)
    weight[np.arange(channels), np.arange(channels), 3, 3] = 1
    model.graph.initializer.append(numpy_helper.from_array(weight, "planted.weight"))
    extra = helper.make_node("Conv", [layer.unrounded, "planted.weight"], ["planted.out"], name="planted", pads=[3, 3, 3, 3])
    model.graph.node.insert(list(model.graph.node).index(rounding), extra)
    rounding.input[0] = "planted.out"
    return "planted"


_FILE: dict[str, Callable[[onnx.ModelProto, tuple[Layer, ...], Draw], str]] = {
    "weight scale": lambda model, layers, draw: _of_weights(model, layers, draw, 1, _times(float(draw.choice([0.5, 0.8, 1.25, 2.0])))),
    "few bits": lambda model, layers, draw: _of_weights(model, layers, draw, 0, _few_bits(draw)),
    "channel order": lambda model, layers, draw: _of_weights(model, layers, draw, 0, _other_order(draw)),
    "bias": _bias_lost,
    "clipping": lambda model, layers, draw: _of_output(model, layers, draw, 1, _times(float(draw.uniform(0.1, 0.6)))),
    "coarse scale": lambda model, layers, draw: _of_output(model, layers, draw, 1, _times(float(draw.uniform(3, 20)))),
    "zero-point": lambda model, layers, draw: _of_output(model, layers, draw, 2, _shifted(draw)),
    "float": _in_float,
    "extra operator": _extra_layer,
}


# --- in the engine ---


def _convolution(engine: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw) -> tuple[onnx.NodeProto, str]:
    """Return a node of the engine and its layer, which the weights' name tells."""
    nodes = [node for node in engine.graph.node if node.op_type == "QLinearConv"]
    node = nodes[int(draw.integers(len(nodes)))]
    return node, next(layer.name for layer in layers if layer.weight == node.input[WEIGHT])


def _of_node(engine: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw, place: int, change: Callable[[np.ndarray], np.ndarray]) -> str:
    node, layer = _convolution(engine, layers, draw)
    _own(engine, node, place, change)
    return layer


def _node_in_float(engine: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw) -> str:
    node, layer = _convolution(engine, layers, draw)
    weight, scale = _value(engine, node.input[WEIGHT]), _value(engine, node.input[SCALE])
    bias = _value(engine, node.input[BIAS]) * scale * _value(engine, node.input[1])
    for name, value in {"planted.weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "planted.bias": bias}.items():
        engine.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    last = any(each.name == "channels_last" and each.i for each in node.attribute)
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute if each.name not in {"channels_last", "auto_pad"}}
    there, back = ([0, weight.ndim - 1, *range(1, weight.ndim - 1)], [0, *range(2, weight.ndim), 1]) if last else (range(weight.ndim),) * 2
    steps = [
        helper.make_node("DequantizeLinear", node.input[:3], ["planted.float"], name="planted.restore"),
        helper.make_node("Transpose", ["planted.float"], ["planted.first"], name="planted.there", perm=list(there)),
        helper.make_node("Conv", ["planted.first", "planted.weight", "planted.bias"], ["planted.conv"], name="planted", **options),
        helper.make_node("Transpose", ["planted.conv"], ["planted.last"], name="planted.back", perm=list(back)),
        helper.make_node("QuantizeLinear", ["planted.last", *node.input[OUTPUT_SCALE : OUTPUT_ZERO_POINT + 1]], node.output, name="planted.round"),
    ]
    _replace(engine, node, steps)
    return layer


def _extra_nodes(engine: onnx.ModelProto, layers: tuple[Layer, ...], draw: Draw) -> str:
    """Put many operators that change nothing behind a convolution."""
    node, layer = _convolution(engine, layers, draw)
    end, grid = node.output[0], node.input[OUTPUT_SCALE : OUTPUT_ZERO_POINT + 1]
    node.output[0] = "planted.int"
    names = [f"planted.{number}" for number in range(61)]
    steps = [
        node,
        helper.make_node("DequantizeLinear", ["planted.int", *grid], names[:1], name="planted.restore"),
        *(helper.make_node("LeakyRelu", [one], [other], name=other, alpha=1.0) for one, other in pairwise(names)),
        helper.make_node("QuantizeLinear", [names[-1], *grid], [end], name="planted.round"),
    ]
    _replace(engine, node, steps)
    return layer


def _replace(engine: onnx.ModelProto, node: onnx.NodeProto, steps: list[onnx.NodeProto]) -> None:
    nodes = [onnx.NodeProto.FromString(new.SerializeToString()) for each in engine.graph.node for new in (steps if each == node else [each])]
    del engine.graph.node[:]
    engine.graph.node.extend(nodes)


_ENGINE: dict[str, Callable[[onnx.ModelProto, tuple[Layer, ...], Draw], str]] = {
    "weight scale": lambda engine, layers, draw: _of_node(engine, layers, draw, SCALE, _times(float(draw.choice([0.5, 0.8, 1.25, 2.0])))),
    "few bits": lambda engine, layers, draw: _of_node(engine, layers, draw, WEIGHT, _few_bits(draw)),
    "channel order": lambda engine, layers, draw: _of_node(engine, layers, draw, WEIGHT, _other_order(draw)),
    "bias": lambda engine, layers, draw: _of_node(engine, layers, draw, BIAS, _lost),
    "clipping": lambda engine, layers, draw: _of_node(engine, layers, draw, OUTPUT_SCALE, _times(float(draw.uniform(0.1, 0.6)))),
    "coarse scale": lambda engine, layers, draw: _of_node(engine, layers, draw, OUTPUT_SCALE, _times(float(draw.uniform(3, 20)))),
    "zero-point": lambda engine, layers, draw: _of_node(engine, layers, draw, OUTPUT_ZERO_POINT, _shifted(draw)),
    "float": _node_in_float,
    "extra operator": _extra_nodes,
}

CASES = (*(Case(kind, "model.onnx") for kind in _FILE), *(Case(kind, "engine") for kind in _ENGINE))


def drawn(seed: int, number: int) -> list[Case]:
    """Return different cases, drawn by a seed."""
    places = np.random.default_rng(seed).choice(len(CASES), size=number, replace=False)
    return [CASES[place] for place in places]
