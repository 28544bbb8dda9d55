"""An error is found where it arises: by the layer that adds it, not by those that inherit it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from quantised_package import IMAGES, build, make_quantised_package, random_network

from bonsai.stages.explanation.errors import Network, errors_of
from bonsai.stages.explanation.forms import dequantised, to_float
from bonsai.stages.explanation.layers import Graph, layers_of
from bonsai.stages.explanation.tensors import Host


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return onnx.load(make_quantised_package(tmp_path_factory.mktemp("int8")) / "model.onnx")


def test_the_float_form_of_a_quantised_file_computes_what_the_float_network_does(model: onnx.ModelProto) -> None:
    network = random_network()
    weights = {f"{name}.weight": network[f"{name}.conv.weight"] for name in ("stem", "block.conv1", "block.conv2", "head")}
    weights |= {"fc.weight": network["fc.linear.weight"], "fc.bias": network["fc.linear.bias"]}
    found = Host(to_float(model, weights), ["logits"]).run(IMAGES)["logits"]
    expected = Host(build(network, None), ["logits"]).run(IMAGES)["logits"]
    assert np.allclose(found, expected, atol=1e-5)
    rounded = Host(to_float(model, {}), ["logits"]).run(IMAGES)["logits"]
    assert 1e-4 < np.abs(rounded - expected).max() < 0.1, "without the float weights, those of the file are taken as they were rounded"


def test_what_a_layer_reads_can_be_given_and_the_layer_before_is_then_of_no_matter(model: onnx.ModelProto) -> None:
    layers = layers_of(Graph(model))
    network = Network(model, layers, IMAGES)
    wrong = network.found["stem"] * 2
    given = network.given({**network.found, "stem": wrong})
    assert np.array_equal(given["stem"], network.found["stem"]), "what it computes itself stays"
    assert np.array_equal(given["head"], network.found["head"]), "it reads the output of the sum, which was given"
    assert not np.array_equal(given["block.conv1"], network.found["block.conv1"])
    assert not np.array_equal(given["Add after block.conv2"], network.found["Add after block.conv2"])


@pytest.mark.parametrize("culprit", ["stem", "block.conv2", "head"])
def test_an_error_of_the_engine_is_that_of_one_layer(model: onnx.ModelProto, culprit: str) -> None:
    layers = layers_of(Graph(model))
    broken = onnx.ModelProto.FromString(model.SerializeToString())
    (bias,) = [each for each in broken.graph.initializer if each.name == f"{culprit}.bias"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    engine = Network(broken, layers, IMAGES)
    errors = errors_of(model, IMAGES, {}, engine.found, engine.outputs["logits"])
    added = {name: pair.error for name, pair in errors.engine.items()}
    assert added.pop(culprit) > 0.1
    assert all(error < 1e-6 for error in added.values())
    behind = [layer.name for layer in layers][[layer.name for layer in layers].index(culprit) :]
    inherits = [name for name in behind if errors.reached[name] > 0.05]
    assert {culprit, behind[-1]} <= set(inherits), "the layers behind it inherit the error, to the outputs"
    assert errors.outputs["engine"] > 0.05


def test_a_layer_s_effect_is_what_its_rounding_alone_does_to_the_outputs(model: onnx.ModelProto) -> None:
    errors = errors_of(model, IMAGES, {}, {}, None)
    layers = [layer.name for layer in layers_of(Graph(model))]
    assert list(errors.effects) == list(errors.rounding) == layers
    assert all(0 < effect < 0.05 for effect in errors.effects.values())
    assert errors.effects["fc"] == pytest.approx(0, abs=1e-3) or errors.effects["fc"] < errors.outputs["rounding"] * 2
    network = Network(model, layers_of(Graph(model)), IMAGES)
    none = {name: np.zeros_like(value) for name, value in network.found.items()}
    assert set(network.effects(none).values()) == {0.0}
    assert network.effects({**none, "head": none["head"] + 1.0})["head"] > 0.1


def test_weights_are_dequantised_by_channel(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    found = dequantised(graph, graph.producers["head.weights"])
    wanted = random_network()["head.conv.weight"]
    step = random_network()["head.weight_quantizer.scale"].reshape(-1, 1, 1, 1)
    assert np.all(np.abs(found - wanted) <= 0.5 * step + 1e-6)


def test_a_file_in_float_has_no_errors_of_rounding(tmp_path: Path) -> None:
    errors = errors_of(build(random_network(), None), IMAGES, {}, {}, None)
    assert (errors.rounding, errors.effects, errors.outputs) == ({}, {}, {})
