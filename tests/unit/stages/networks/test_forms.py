"""How a network takes its inputs and returns its outputs."""

import numpy as np
import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.forms import Form
from bonsai.stages.tasks.task import TensorSpec

TENSOR, TUPLE, DICT = Form("tensor", ("0",), ((2,),)), Form("tuple", ("0", "1"), ((2,), (3,))), Form("dict", ("a", "b"), ((2,), (3,)))


@pytest.mark.parametrize(
    ("form", "given", "found"),
    [
        (TENSOR, 7, [7]),
        (TENSOR, (7,), None),
        (TUPLE, (7, 8), [7, 8]),
        (TUPLE, [7, 8, 9], [7, 8]),
        (TUPLE, (7,), None),
        (TUPLE, np.zeros((2, 2)), None),
        (DICT, {"b": 8, "a": 7, "c": 9}, [7, 8]),
        (DICT, {"a": 7}, None),
        (DICT, (7, 8), None),
    ],
)
def test_values_are_found_in_the_order_of_the_form(form: Form, given: object, found: list[int] | None) -> None:
    assert form.values_in(given) == found


def test_values_come_back_in_the_same_form() -> None:
    assert (TENSOR.arranged([7]), TUPLE.arranged([7, 8]), DICT.arranged([7, 8])) == (7, (7, 8), {"a": 7, "b": 8})


def test_tensors_of_a_file_have_names() -> None:
    assert TENSOR.specs(None, "input") == (TensorSpec("input", (2,)),)
    assert [spec.name for spec in TUPLE.specs(None, "input")] == ["input_0", "input_1"]
    assert [spec.name for spec in DICT.specs(None, "output")] == ["a", "b"]
    assert TUPLE.specs(("depth", "rgb"), "input") == (TensorSpec("depth", (2,)), TensorSpec("rgb", (3,)))


@pytest.mark.parametrize("names", [("x",), ("x", "x"), ("x", ""), ("x", "a"), ("x", 7)])
def test_names_that_do_not_fit_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"the names of the outputs do not fit the network[\s\S]*2 different names beside `a`[\s\S]*outputs=\(...\)"):
        TUPLE.specs(names, "output", taken=(TensorSpec("a", (2,)),))
