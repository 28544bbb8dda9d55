from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from profiles.loader import load_profile
from profiles.operator_class import OperatorClass
from stages.backends.operator_timing import measure_operator
from stages.graph.single_operator import single_operator_graph

OPERATORS = [
    (OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu"), 16, 32),
    (OperatorClass(op="conv", kernel=3, stride=2, height=4, width=4, epilogue="none"), 16, 32),
    (OperatorClass(op="conv", kernel=1, height=8, width=8, epilogue="add_relu"), 16, 16),
    (OperatorClass(op="conv", kernel=3, height=8, width=8, depthwise=True, epilogue="relu"), 16, 16),
    (OperatorClass(op="linear"), 16, 10),
]


@pytest.mark.parametrize(("operator", "ci", "co"), OPERATORS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_graph_is_valid_and_has_the_output_that_its_class_says(operator: OperatorClass, ci: int, co: int, precision: str) -> None:
    model, feeds = single_operator_graph(operator, ci, co, batch=2, precision=precision)
    onnx.checker.check_model(model, full_check=True)
    out = np.asarray(ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0])
    assert out.shape == ((2, co) if operator.op == "linear" else (2, co, operator.height, operator.width))


@pytest.mark.parametrize(("case", "kernel"), [(OPERATORS[0], "QLinearConv"), (OPERATORS[-1], "QGemm")])
def test_an_int8_operator_is_timed_as_an_int8_kernel(case: tuple[OperatorClass, int, int], kernel: str, tmp_path: Path) -> None:
    operator, ci, co = case
    entry, contention = measure_operator(operator, ci, co, load_profile("local-cpu").target, scratch=tmp_path)
    assert entry.kernels == kernel
    assert entry.reps >= 300
    assert 0 < entry.p50_us < 1e5
    assert contention > 0
    assert list(tmp_path.iterdir()) == []
