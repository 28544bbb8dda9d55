"""Where a network's outputs begin to differ: the error that each layer adds, apart from the one that it inherits.

The float network, the ONNX file and the engine run on the same inputs. A layer *adds* what its output differs by from that of the layer before it in this
chain, if both read the same values. Those are the values that the layer really reads, with all errors of the layers before it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx

from bonsai.stages.explanation.forms import ERRED, ERROR, GIVEN, cut, float_layers, open_to_errors, to_float
from bonsai.stages.explanation.layers import Graph, Layer, layers_of
from bonsai.stages.explanation.probing import difference
from bonsai.stages.explanation.tensors import Host, Tensors


class Pair(NamedTuple):
    """A layer's output in two forms that read the same values, (images, ...).

    Attributes:
        wanted: By the form that it is compared with.
        found: By the form that is looked at.
    """

    wanted: np.ndarray
    found: np.ndarray

    @property
    def error(self) -> float:
        """Size of the difference over that of the wanted values."""
        return difference(self.found, self.wanted)


class Network:
    """A form of a network whose layers can be run one by one.

    Args:
        model: The ONNX file.
        layers: Its layers.
        images: (images, ...) float32: the inputs.

    Attributes:
        outputs: What it gives for the images, by name.
        found: Each layer's output by the layer's name, (images, 1, ...).

    Raises:
        BuildError: ONNX Runtime cannot run it.
    """

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], images: np.ndarray) -> None:
        self.model, self.layers, self._images = model, layers, images
        names = Graph(model).outputs
        tensors = Host(model, [*(layer.output for layer in layers), *names]).run(images)
        self.found: Tensors = {layer.name: tensors[layer.output] if layer.output in tensors else images[:, None] for layer in layers}
        self.outputs: Tensors = {name: tensors[name] for name in names}
        self._types = {layer.output: self.found[layer.name].dtype for layer in layers}

    def given(self, values: Mapping[str, np.ndarray]) -> Tensors:
        """Return each layer's output if it reads other values.

        Args:
            values: By the name of the layer that they are the output of; where there are none, the layers behind read what the network itself computes.
        """
        there = [layer for layer in self.layers if layer.name in values]
        given = {layer.output + GIVEN: values[layer.name].astype(self._types[layer.output]) for layer in there}
        tensors = Host(cut(self.model, there, self._types), [layer.output for layer in self.layers]).run(self._images, given)
        return {layer.name: tensors.get(layer.output, self.found[layer.name]) for layer in self.layers}

    def effects(self, errors: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return how far the network's outputs move if one layer alone has an error, over the size of the outputs.

        Args:
            errors: What is added to a layer's output, by the layer's name, (images, 1, ...).
        """
        there = [layer for layer in self.layers if layer.name in errors]
        outputs = [name + ERRED if name in {layer.output for layer in there} else name for name in self.outputs]
        opened = Host(open_to_errors(self.model, there, self._types), outputs)
        quiet = {layer.output + ERROR: np.zeros_like(self.found[layer.name]) for layer in there}
        expected = _joined(list(self.outputs.values()))
        effects = {}
        for layer in there:
            moved = opened.run(self._images, {**quiet, layer.output + ERROR: errors[layer.name].astype(self._types[layer.output])})
            effects[layer.name] = difference(_joined([moved[name] for name in outputs]), expected)
        return effects


class Errors(NamedTuple):
    """The errors of a package's layers, each by the layer's name.

    Attributes:
        rounding: The ONNX file beside the float network; empty for a file that is not quantised.
        effects: How far the outputs move if this layer alone is rounded.
        engine: The engine beside the ONNX file; of the layers that the engine shows.
        reached: The difference between the engine, or where it does not show the layer the ONNX file, and the float network: added and inherited.
        outputs: The same at the outputs of the network, by step: "torch float", "simulated", "rounding", "engine", "both".
        simulated: The ONNX file beside the fake-quantised network in torch; of the layers that both round.
    """

    rounding: dict[str, Pair]
    effects: dict[str, float]
    engine: dict[str, Pair]
    reached: dict[str, float]
    outputs: dict[str, float]
    simulated: dict[str, Pair] = {}


class Simulated(NamedTuple):
    """A package's network in torch.

    Attributes:
        tensors: What each quantiser gave, by its name, (images, 1, ...).
        outputs: Outputs of the fake-quantised network, (images, ...).
        in_float: Outputs without rounding.
    """

    tensors: Tensors
    outputs: np.ndarray
    in_float: np.ndarray


def errors_of(
    model: onnx.ModelProto,
    images: np.ndarray,
    weights: Mapping[str, np.ndarray],
    engine: Tensors,
    engine_outputs: np.ndarray | None,
    simulated: Simulated | None = None,
) -> Errors:
    """Return the errors of every layer.

    Args:
        model: The ONNX file.
        images: (images, ...) float32.
        weights: Weights and biases before they were rounded, by name in the file.
        engine: Outputs of the layers in the engine, by the layer's name; empty if it does not show them.
        engine_outputs: Its outputs, (images, ...), several joined; None if it was not run.
        simulated: The network in torch, its tensors by the layer's name; None if torch was not asked.

    Raises:
        BuildError: ONNX Runtime cannot run the file node by node.
    """
    layers = layers_of(Graph(model))
    network = Network(model, layers, images)
    plain = to_float(model, weights)
    is_quantised = len(plain.graph.node) < len(model.graph.node)
    exact = Network(plain, float_layers(layers, plain), images) if is_quantised else network
    rounding: dict[str, Pair] = {}
    effects: dict[str, float] = {}
    if is_quantised:
        wanted, rounded = exact.given(network.found), network.given(exact.found)
        rounding = {layer.name: Pair(wanted[layer.name], network.found[layer.name]) for layer in layers}
        effects = exact.effects({name: rounded[name].astype(np.float32) - value for name, value in exact.found.items()})
    by_file = network.given(engine) if engine else {}
    last = {**network.found, **engine}
    joined = [_joined(list(each.outputs.values())) for each in (exact, network)]
    outputs = {"rounding": difference(joined[1], joined[0])} if is_quantised else {}
    if engine_outputs is not None:
        found = engine_outputs.reshape(len(images), -1)
        outputs |= {"engine": difference(found, joined[1]), "both": difference(found, joined[0])}
    in_torch: dict[str, Pair] = {}
    if simulated is not None:
        by_torch = network.given(simulated.tensors)
        in_torch = {name: Pair(found, by_torch[name]) for name, found in simulated.tensors.items()}
        flat = [each.reshape(len(images), -1) for each in (simulated.in_float, simulated.outputs)]
        outputs |= {"torch float": difference(joined[0], flat[0]), "simulated": difference(joined[1], flat[1])}
    return Errors(
        rounding=rounding,
        effects=effects,
        engine={name: Pair(by_file[name], found) for name, found in engine.items()},
        reached={name: difference(value, exact.found[name]) for name, value in last.items()},
        outputs=outputs,
        simulated=in_torch,
    )


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)
