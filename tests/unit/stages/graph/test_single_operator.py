from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import LIGHT, OperatorClass
from bonsai.stages.backends.operator_timing import LEAST_US, measure_operator
from bonsai.stages.graph.single_operator import single_operator_graph

OPERATORS = [
    (OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu"), 16, 32),
    (OperatorClass(op="conv", kernel=3, stride=2, height=4, width=4, epilogue="none"), 16, 32),
    (OperatorClass(op="conv", kernel=1, height=8, width=8, epilogue="add_relu"), 16, 16),
    (OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=1, epilogue="relu"), 16, 16),
    (OperatorClass(op="linear"), 16, 10),
]
OTHERS = [
    (OperatorClass(op="conv", kernel=(1, 7), height=9, width=5), 16, 32),
    (OperatorClass(op="conv", kernel=(7, 1), height=9, width=5, epilogue="relu"), 16, 32),
    (OperatorClass(op="conv", kernel=4, stride=4, height=8, width=8), 3, 16),
    (OperatorClass(op="conv", kernel=2, stride=2, height=8, width=6, input_size=(17, 13)), 16, 16),
    (OperatorClass(op="conv", kernel=3, dilation=2, height=8, width=8, input_size=(12, 12)), 16, 16),
    (OperatorClass(op="conv", kernel=3, height=8, width=8, groups=4), 16, 32),
    (OperatorClass(op="conv", kernel=3, height=6, width=6, group_channels=(1, 2)), 16, 32),
    (OperatorClass(op="conv_transposed", kernel=3, stride=2, height=16, width=16, groups=2), 16, 32),
    (OperatorClass(op="conv_transposed", kernel=2, stride=2, height=16, width=16), 16, 32),
    (OperatorClass(op="conv1d", kernel=(1, 3), width=48), 1, 1),
    (OperatorClass(op="linear", tokens=49), 16, 32),
    (OperatorClass(op="matmul", groups=4, tokens=49), 32, 196),
    (OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=(4, 8)), 16, 32),
    (OperatorClass(op="conv_transposed", kernel=2, stride=2, height=8, width=8, group_channels=(2, 1)), 16, 8),
    (OperatorClass(op="matmul", group_channels=(8, 49), tokens=49), 32, 196),
    (OperatorClass(op="softmax", group_channels=(49, 49), height=49), 196, 196),
    (OperatorClass(op="global_pool", input_size=(7, 7)), 16, 16),
    (OperatorClass(op="avg_pool", kernel=2, stride=2, height=8, width=8, input_size=(20, 20)), 16, 16),
    (OperatorClass(op="max_pool", kernel=3, stride=2, height=8, width=8), 16, 16),
    (OperatorClass(op="resize", height=8, width=8, input_size=(4, 4)), 16, 16),
    *((OperatorClass(op=op, height=4, width=6), 16, 16) for op in sorted(LIGHT - {"global_pool", "avg_pool", "max_pool", "resize"})),
]


def shape_of(operator: OperatorClass, co: int) -> tuple[int, ...]:
    if operator.op == "linear":
        return (2, co) if operator.tokens == 1 else (2, operator.tokens, co)
    if operator.op == "matmul":
        heads = operator.groups if operator.group_channels is None else co // operator.group_channels[1]
        return (2, heads, operator.tokens, co // heads)
    if operator.op == "softmax" and operator.group_channels is not None:
        return (2, co // operator.group_channels[1], operator.height, operator.group_channels[1])
    if operator.op in {"layer_norm", "softmax"}:
        return (2, operator.height * operator.width, co)
    return (2, co, operator.width) if operator.op == "conv1d" else (2, co, operator.height, operator.width)


@pytest.mark.parametrize(("operator", "ci", "co"), OPERATORS + OTHERS, ids=lambda value: str(value))
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_graph_is_valid_and_has_the_output_that_its_class_says(operator: OperatorClass, ci: int, co: int, precision: str) -> None:
    model, feeds = single_operator_graph(operator, ci, co, batch=2, precision=precision)
    onnx.checker.check_model(model, full_check=True)
    out = np.asarray(ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0])
    assert out.shape == shape_of(operator, co)


@pytest.mark.parametrize(("case", "kernel"), [(OPERATORS[0], "QLinearConv"), (OPERATORS[-1], "QGemm")])
def test_an_int8_operator_is_timed_as_an_int8_kernel(case: tuple[OperatorClass, int, int], kernel: str, tmp_path: Path) -> None:
    operator, ci, co = case
    entry, contention = measure_operator(operator, ci, co, load_profile("local-cpu").target, scratch=tmp_path)
    assert entry.kernels == kernel
    assert entry.reps >= 300
    assert 0 < entry.p50_us < 1e5
    assert contention > 0
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_stays_in_float_beside_int8_is_timed_as_a_float_kernel(tmp_path: Path) -> None:
    kept = OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu", precision="fp32")
    entry, _ = measure_operator(kept, 16, 32, load_profile("local-cpu").target, scratch=tmp_path)
    assert entry.kernels == "Conv"


def test_what_the_runtime_takes_into_its_neighbours_costs_next_to_nothing(tmp_path: Path) -> None:
    entry, _ = measure_operator(OperatorClass(op="relu", height=8, width=8), 16, 16, load_profile("local-cpu").target, scratch=tmp_path)
    assert (entry.kernels, entry.p50_us) == ("", LEAST_US)
