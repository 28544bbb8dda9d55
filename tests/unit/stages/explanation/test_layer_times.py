import pytest

from bonsai.stages.backends.device import KernelTime
from bonsai.stages.explanation.layer_times import LayerTime, in_float, times_by_layer, too_long


def kernel(name: str, op: str, us: float, precision: str = "int8") -> KernelTime:
    return KernelTime.model_validate({"name": name, "op": op, "precision": precision, "microseconds": us})


def test_times_are_summed_by_layer_and_a_kernel_of_no_layer_counts_to_the_one_before() -> None:
    kernels = [kernel("a", "QLinearConv", 5), kernel("reorder", "Reorder", 1), kernel("b", "Conv", 7, "float"), kernel("c", "QuantizeLinear", 2, "float")]
    found = times_by_layer(kernels, {"a": "stem", "b": "head", "c": "head"})
    assert found == {
        "stem": LayerTime(6, ("QLinearConv", "Reorder"), ()),
        "head": LayerTime(9, ("Conv", "QuantizeLinear"), ("Conv",)),
    }


@pytest.mark.parametrize(
    ("here", "elsewhere", "found"),
    [(100, 10, True), (100, 90, False), (30, 10, False), (100, 70, False)],
    ids=["ten times", "hardly longer", "little of the engine", "less than half as long again"],
)
def test_a_layer_takes_too_long_where_that_is_much_and_costs_much(here: float, elsewhere: float, found: bool) -> None:
    ours, theirs = {"head": LayerTime(here), "rest": LayerTime(100)}, {"head": LayerTime(elsewhere)}
    fault = too_long("head", ours, theirs, "elsewhere")
    assert (fault is not None) == found
    if fault is not None:
        assert fault.seen == "it takes 100 us, 10.0 times as long as elsewhere (10 us): 50% of the engine"


def test_a_layer_that_the_other_engine_has_in_another_kernel_is_not_compared() -> None:
    assert too_long("head", {"head": LayerTime(100)}, {}, "elsewhere") is None


@pytest.mark.parametrize(("us", "kernels", "found"), [(50, ("Conv",), True), (10, ("Conv",), False), (50, (), False)])
def test_a_layer_in_float_stands_out_where_it_costs_much(us: float, kernels: tuple[str, ...], found: bool) -> None:
    fault = in_float("head", {"head": LayerTime(us, kernels, kernels), "rest": LayerTime(50)})
    assert (fault is not None) == found
