"""2:4 sparse weights are told from others, wherever a file keeps them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bonsai.stages.graph.sparsity import count_sparse, is_sparse


def halved(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return a weight with the first two of every four positions along an axis set to zero."""
    found = np.moveaxis(weight.copy(), axis, -1)
    found[..., np.arange(found.shape[-1]) % 4 < 2] = 0
    return np.ascontiguousarray(np.moveaxis(found, -1, axis))


def graph(node: onnx.NodeProto, *before: onnx.NodeProto, **tensors: np.ndarray) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    images, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    return helper.make_model(helper.make_graph([*before, node], "g", [images], [found], initializers))


ONES = np.ones((8, 8, 3, 3), dtype=np.float32)
CONV = helper.make_node("Conv", ["x", "w"], ["y"])


@pytest.mark.parametrize(("axis", "sparse"), [(1, 1), (0, 0)])
def test_a_convolution_is_sparse_along_its_inputs(axis: int, sparse: int) -> None:
    assert count_sparse(graph(CONV, w=halved(ONES, axis))) == {"sparse_eligible_layers": 1, "sparse_layers": sparse}


def test_one_weight_too_many_makes_a_layer_dense() -> None:
    weight = halved(ONES, 1)
    weight[7, 4, 2, 2] = 1e-3
    assert count_sparse(graph(CONV, w=weight)) == {"sparse_eligible_layers": 1, "sparse_layers": 0}


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (8, 6, 1, 1)])
def test_inputs_that_are_no_multiple_of_four_have_no_sparse_kernel(shape: tuple[int, ...]) -> None:
    assert count_sparse(graph(CONV, w=np.zeros(shape, dtype=np.float32)))["sparse_eligible_layers"] == 0


def test_grouped_convolutions_and_products_of_activations_are_not_counted() -> None:
    grouped = helper.make_node("Conv", ["x", "w"], ["y"], group=2)
    assert count_sparse(graph(grouped, w=ONES))["sparse_eligible_layers"] == 0
    assert count_sparse(graph(helper.make_node("MatMul", ["x", "x"], ["y"])))["sparse_eligible_layers"] == 0


@pytest.mark.parametrize(("op", "transposed", "inputs"), [("MatMul", None, 0), ("Gemm", 0, 0), ("Gemm", 1, 1)])
def test_a_product_is_sparse_along_what_it_sums_over(op: str, transposed: int | None, inputs: int) -> None:
    node = helper.make_node(op, ["x", "w"], ["y"], **({} if transposed is None else {"transB": transposed}))
    weight = np.ones((8, 8), dtype=np.float32)
    assert count_sparse(graph(node, w=halved(weight, inputs)))["sparse_layers"] == 1
    assert count_sparse(graph(node, w=halved(weight, 1 - inputs)))["sparse_layers"] == 0


def test_a_quantised_weight_is_followed_through_its_scale_and_its_transpose() -> None:
    dequantize = helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["float"], axis=0)
    turn = helper.make_node("Transpose", ["float"], ["turned"], perm=[1, 0])
    node = helper.make_node("MatMul", ["x", "turned"], ["y"])
    weight = np.ones((8, 12), dtype=np.int8)
    others = {"scale": np.ones(8, dtype=np.float32), "zero": np.zeros(8, dtype=np.int8)}
    assert count_sparse(graph(node, dequantize, turn, w=halved(weight, 1), **others))["sparse_layers"] == 1
    assert count_sparse(graph(node, dequantize, turn, w=halved(weight, 0), **others))["sparse_layers"] == 0


def test_two_of_four_are_counted_in_runs_and_not_overall() -> None:
    assert is_sparse(np.array([[1, 1, 0, 0, 0, 0, 1, 1]]))
    assert not is_sparse(np.array([[1, 1, 1, 0, 0, 0, 0, 1]]))


def test_a_file_is_counted_as_it_was_written(tmp_path: Path) -> None:
    onnx.save(graph(CONV, w=halved(ONES, 1)), tmp_path / "model.onnx")
    assert count_sparse(onnx.load(tmp_path / "model.onnx"))["sparse_layers"] == 1
