import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.audit import audit_graph, float_layers, require_dialect, require_folded


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, None)], [value("y", TensorProto.FLOAT, None)], initializers))


def quantised_head(*, weight: str, transposed: bool = False) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Return a quantised matrix product behind a float convolution."""
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["a"], name="node_conv"),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("DequantizeLinear", ["b", "s", "z"], ["c"]),
        helper.make_node("DequantizeLinear", [weight, "s", "zw"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"]),
        helper.make_node("MatMul", ["c", "e"] if transposed else ["c", "d"], ["y"], name="node_matmul"),
    ]
    weights = {
        "stem.weight": np.zeros((1, 1, 1, 1), np.float32),
        weight: np.zeros((2, 2), np.int8),
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.uint8),
        "zw": np.array(0, np.int8),
    }
    return nodes, weights


@pytest.mark.parametrize("transposed", [False, True])
def test_float_layers_are_listed_by_the_name_of_their_weight(transposed: bool) -> None:
    model = graph(*quantised_head(weight="fc.weight", transposed=transposed))
    assert float_layers(model) == ("stem",)


def test_a_layer_whose_weight_has_lost_its_name_is_listed_by_its_node() -> None:
    nodes, weights = quantised_head(weight="fc.weight")
    nodes[0].input[1] = "folded_7"
    assert float_layers(graph(nodes, {**weights, "folded_7": weights["stem.weight"]})) == ("node_conv",)


def test_a_layer_of_quantised_weights_and_float_input_is_a_float_layer() -> None:
    nodes, weights = quantised_head(weight="fc.weight")
    nodes[-1].input[0] = "a"
    assert float_layers(graph(nodes, weights)) == ("stem", "fc")


def test_a_product_of_two_activations_is_no_layer() -> None:
    model = graph([helper.make_node("MatMul", ["x", "x"], ["y"])], {})
    assert float_layers(model) == ()


def test_layers_that_were_meant_to_be_int8_are_required_by_number() -> None:
    model = graph(*quantised_head(weight="fc.weight"))
    with pytest.raises(BuildError, match="1 layers are INT8, 2 should be; in float: stem"):
        require_dialect(model, "ort", 2)
    require_dialect(model, "ort", 1)


@pytest.mark.parametrize(("before", "unfolded"), [("Conv", 1), ("ConvTranspose", 1), ("Concat", 0), ("Relu", 0)])
def test_a_batchnorm_is_allowed_where_no_convolution_could_hold_it(before: str, unfolded: int) -> None:
    inputs = ["x", "w"] if before.startswith("Conv") else ["x"]
    nodes = [helper.make_node(before, inputs, ["a"]), helper.make_node("BatchNormalization", ["a", "g", "g", "g", "g"], ["y"])]
    model = graph(nodes, {"w": np.zeros((1, 1, 1, 1), np.float32), "g": np.zeros(1, np.float32)})
    counts = audit_graph(model)
    assert counts["BatchNormalization"] == 1
    assert counts["unfolded_batchnorms"] == unfolded
    if unfolded:
        with pytest.raises(BuildError, match="1 BatchNormalization nodes were not folded"):
            require_folded(model)
    else:
        require_folded(model)


def test_a_batchnorm_behind_a_convolution_that_others_read_is_allowed() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "g", "g", "g", "g"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    counts = audit_graph(graph(nodes, {"w": np.zeros((1, 1, 1, 1), np.float32), "g": np.zeros(1, np.float32)}))
    assert counts["unfolded_batchnorms"] == 0
