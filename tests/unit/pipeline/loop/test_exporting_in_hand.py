"""A trained network in hand, before it is exported: what it is known by, and which engine it becomes."""

import copy

import numpy as np
import pytest
import torch
from branched import Rep
from torch import nn

import bonsai
from bonsai.pipeline.loop.exporting import closeness, require_close, take_in_hand
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.networks.forms import Form
from bonsai.stages.tasks.task import TensorSpec

IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
ONE = Form("tensor", ("0",), ((1, 8, 8),))
SPECS = (TensorSpec("a", (2,)), TensorSpec("b", (1, 2)))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def test_a_network_is_known_by_its_structure_and_its_weights() -> None:
    network, other, wider = plain(), plain(), nn.Sequential(*plain()[:-1], nn.Linear(8, 4))
    with torch.no_grad():
        other[0].bias[0] += 1e-6
    found, again, changed, unlike = (take_in_hand(each, "the model", ONE, IMAGES).facts for each in (network, copy.deepcopy(network), other, wider))
    assert found == again
    assert (found.structure == changed.structure, found.weights == changed.weights) == (True, False)
    assert found.structure != unlike.structure


def test_a_network_that_is_trained_in_branches_is_exported_fused() -> None:
    network = nn.Sequential(Rep(1, 8), nn.Flatten())
    network(IMAGES)
    hand = take_in_hand(network, "the model", ONE, IMAGES)
    assert hand.fused
    assert network.training
    assert network[0].point is not None and not hasattr(hand.network[0], "point")  # type: ignore[index]


def test_a_quantised_network_becomes_an_int8_engine_and_a_float_one_the_reference_precision() -> None:
    target = load_profile("local-cpu").target
    floating = take_in_hand(plain(), "the model", ONE, IMAGES)
    quantised = take_in_hand(bonsai.quantize(plain(), IMAGES, calibration=IMAGES), "the model", ONE, IMAGES)
    assert (floating.precision(target, None), quantised.precision(target, None)) == ("fp32", "int8")
    assert quantised.facts.quantizers == quantised.quantizers
    assert quantised.facts.structure != floating.facts.structure
    with pytest.raises(ConfigError, match="a quantised network has no engine of this precision"):
        quantised.precision(target, "fp32")


def test_outputs_are_compared_one_by_one() -> None:
    wanted = np.array([[1.0, 2.0, 100.0, 200.0], [3.0, 5.0, 300.0, 500.0]], np.float32)
    found = wanted + np.array([1.0, 0, 0, 0], np.float32)
    first, second = closeness(found, wanted, SPECS)
    assert (first.output, first.mean, first.largest) == ("a", pytest.approx(0.5 / wanted[:, :2].std()), pytest.approx(0.2))
    assert (second.mean, second.largest) == (0, 0)
    with pytest.raises(BuildError, match=r"output 'a' differs by 33.8% of its spread"):
        require_close((first, second), "model.onnx", ExportConfig())


@pytest.mark.parametrize(("found", "said"), [(np.ones((2, 3), np.float32), "have shape"), (np.full((2, 4), np.nan, np.float32), "'a' is not finite")])
def test_outputs_that_cannot_be_compared_are_refused(found: np.ndarray, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        closeness(found, np.ones((2, 4), np.float32), SPECS)
