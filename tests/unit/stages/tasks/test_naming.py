"""Figures lie under their metric's name, as packages from before there were tasks have them."""

import json

import pytest
from pydantic import ValidationError

from bonsai.profiles.located_yaml import Record
from bonsai.stages.delivery.decisions import Tried
from bonsai.stages.measurement.measurements import Accuracy
from bonsai.stages.networks.checkpoint import History

STORED = {
    History: {"step": 3, "epoch": 1.0, "phase": "trunk", "loss": 0.5, "validation_top1": 0.9},
    Accuracy: {"top1": 0.9, "low": 0.8, "high": 0.95, "n": 100, "measured_by": "engine", "part": "test"},
    Tried: {"precision": "int8", "validation_top1": 0.9, "test_top1": None, "latency": 0.7, "outcome": "shipped"},
}


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.__name__)
def test_what_earlier_packages_hold_is_read_and_written_as_it_was(kind: type[Record]) -> None:
    found = kind.model_validate(STORED[kind])
    assert found.metric == "top1"  # type: ignore[attr-defined]
    assert json.loads(found.model_dump_json()) == STORED[kind]
    assert list(json.loads(found.model_dump_json())) == list(STORED[kind])
    assert kind.model_validate(found.model_dump()) == found


def test_figures_of_two_metrics_and_unknown_keys_are_refused() -> None:
    for wrong in ({"validation_top1": 0.9, "test_rmse": 0.1}, {"validation_top1": 0.9, "test_top1": None, "more": 1}):
        with pytest.raises(ValidationError):
            Tried.model_validate({"precision": "int8", "latency": 0.7, "outcome": "", **wrong})
