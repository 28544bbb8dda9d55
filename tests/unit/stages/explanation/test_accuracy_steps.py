import pytest
from tiny_report import a_manifest

from bonsai.stages.explanation.accuracy import accuracy_steps
from bonsai.stages.measurement.measurements import Accuracy, Row


def row(network: str, precision: str, value: float, *, shipped: bool = False) -> Row:
    found = {"metric": "top1", "value": value, "low": value - 0.01, "high": value + 0.01, "n": 400, "measured_by": "engine", "part": "validation"}
    facts = {"network": network, "precision": precision, "shipped": shipped, "size_bytes": 1, "parameters": 1, "macs": 1}
    return Row.model_validate({**facts, "latency": None, "accuracy": Accuracy.model_validate(found)})


@pytest.mark.parametrize(
    ("pruned", "shipped", "told"),
    [(0.80, 0.79, True), (0.90, 0.80, False), (0.949, 0.948, False)],
    ids=["pruning costs most", "rounding costs most", "nothing costs much"],
)
def test_the_step_that_costs_most_is_told_if_it_is_pruning(pruned: float, shipped: float, told: bool) -> None:
    rows = (row("dense", "fp32", 0.95), row("pruned", "fp32", pruned), row("pruned", "int8", shipped, shipped=True))
    lines = accuracy_steps(a_manifest().model_copy(update={"metrics": rows}))
    assert lines[0] == "dense fp32: top-1 95.00% on the validation data"
    assert ("Pruning costs more than rounding" in lines[-1]) == told
