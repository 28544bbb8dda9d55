import onnx
import pytest
from onnx import TensorProto, helper
from quantised_package import build, random_network
from tiny_package import SHAPE

from bonsai.stages.explanation.layers import Graph, layers_of

NAMES = ["stem", "block.conv1", "block.conv2", "Add after block.conv2", "head", "GlobalAveragePool after head", "fc"]


def grids() -> dict[str, object]:
    tensors = random_network()
    for name in ("x", "stem", "block_conv1", "block_conv2", "sum", "head", "pool"):
        tensors |= {f"quantize_{name}.scale": 0.1, f"quantize_{name}.zero_point": 7}  # type: ignore[dict-item]
    return tensors  # type: ignore[return-value]


def test_layers_are_named_by_their_weights_and_those_without_by_the_layer_before() -> None:
    plain = layers_of(Graph(build(random_network(), None)))
    assert [layer.name for layer in plain] == NAMES
    assert [layer.near for layer in plain] == ["stem", "block.conv1", "block.conv2", "block.conv2", "head", "head", "fc"]
    assert {layer.name: layer.output for layer in plain}["stem"] == "stem.out", "the activation is part of the layer"
    assert not any(layer.is_quantised for layer in plain)


def test_a_quantised_layer_ends_behind_its_rounding_and_an_input_that_is_rounded_is_a_layer() -> None:
    quantised = layers_of(Graph(build(random_network(), grids())))  # type: ignore[arg-type]
    assert [layer.name for layer in quantised] == ["input", *NAMES]
    by_name = {layer.name: layer for layer in quantised}
    assert (by_name["stem"].output, by_name["stem"].unrounded) == ("stem.out.rounded", "stem.out")
    assert (by_name["input"].output, by_name["input"].op) == ("input.rounded", "input")
    assert not by_name["fc"].is_quantised
    assert by_name["fc"].weight == "fc.weight"


def a_graph(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("out",)) -> Graph:
    shape = [1, *SHAPE]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    return Graph(helper.make_model(helper.make_graph(list(nodes), "small", [images], values)))


@pytest.mark.parametrize(
    ("alpha", "found"), [(1.0, ["Exp after input"]), (0.1, ["LeakyRelu after input", "Exp after input"])], ids=["a shield", "an activation"]
)
def test_a_shield_of_a_float_layer_is_no_layer(alpha: float, found: list[str]) -> None:
    graph = a_graph(helper.make_node("LeakyRelu", ["input"], ["same"], alpha=alpha), helper.make_node("Exp", ["same"], ["out"]))
    assert [layer.name for layer in layers_of(graph)] == found


def test_an_activation_that_others_bypass_is_a_layer_of_its_own_and_equal_names_are_numbered() -> None:
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in (("Exp", ["input"], "a"), ("Exp", ["a"], "b"), ("Relu", ["b"], "c"))]
    graph = a_graph(*nodes, helper.make_node("Add", ["b", "c"], ["out"]))
    assert [layer.name for layer in layers_of(graph)] == ["Exp after input", "Exp after input (2)", "Relu after input", "Add after input"]


def test_shapes_and_moves_are_no_layers() -> None:
    nodes = [helper.make_node("Shape", ["input"], ["sides"]), helper.make_node("Exp", ["input"], ["a"]), helper.make_node("Reshape", ["a", "sides"], ["out"])]
    assert [layer.name for layer in layers_of(a_graph(*nodes))] == ["Exp after input"]
