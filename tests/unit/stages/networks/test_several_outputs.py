"""A network's dict or tuple of outputs: the task's are one tensor, the others are auxiliary."""

import copy
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.trace import trace
from bonsai.stages.networks.calling import evaluating, outputs_of, training
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network, require_outputs
from bonsai.stages.networks.several_outputs import auxiliary_outputs, outputs_as_they_are
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import first_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.tasks.registry import learning_of
from bonsai.stages.tasks.task import DataSpec, TensorSpec, separate
from bonsai.stages.training.config import TrainConfig

SHAPE = (3, 8, 8)
SEVERAL = (TensorSpec("logits", (5,)), TensorSpec("map", (2, 8, 8)))
Fields = namedtuple("Fields", ["out", "aux"])


class Heads(nn.Module):
    """A trunk with three heads: classes, a map, and one for training alone."""

    def __init__(self, in_channels: int, num_classes: int, form: str = "dict") -> None:
        super().__init__()
        self.form = form
        self.trunk = nn.Sequential(nn.Conv2d(in_channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.map = nn.Conv2d(16, 2, 1)
        self.fc = nn.Linear(16, num_classes)
        self.aux = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, num_classes))

    def forward(self, x: torch.Tensor) -> object:
        x = self.trunk(x)
        pooled = x.mean((2, 3))
        found = OrderedDict(out=self.fc(pooled), map=self.map(x), aux=self.aux(pooled))
        if self.form == "fields":
            return Fields(found["out"], found["aux"])
        return tuple(found.values()) if self.form == "tuple" else found


def network(*outputs: str, form: str = "dict") -> nn.Module:
    config = ModelConfig(name="test_several_outputs:Heads", options={"form": form}, outputs=outputs)
    return build_network(config, SHAPE, 5)


@pytest.mark.parametrize(("form", "name"), [("dict", "out"), ("tuple", "0"), ("fields", "out")])
def test_one_of_several_outputs_is_the_tasks(form: str, name: str) -> None:
    chosen, images = network(name, form=form), torch.randn(2, *SHAPE)
    require_outputs(chosen, DataSpec(SHAPE, 5), learning_of("classification", TrainConfig()))
    with evaluating(chosen), torch.no_grad():
        found = outputs_of(chosen, images)
        with outputs_as_they_are():
            whole = outputs_of(chosen, images)
    expected = whole["out"] if form == "dict" else whole[0]  # type: ignore[call-overload]
    assert torch.equal(found, expected)
    assert type(chosen).__name__ == "Heads"
    assert torch.equal(outputs_of(copy.deepcopy(chosen).eval(), images), found)


def test_several_outputs_are_joined_and_separated_again() -> None:
    joining, images = network("out", "map"), torch.randn(4, *SHAPE)
    with evaluating(joining), torch.no_grad():
        found = outputs_of(joining, images)
        with outputs_as_they_are():
            whole = outputs_of(joining, images)
    assert found.shape == (4, 5 + 2 * 64)
    parts = separate(found.numpy(), SEVERAL)
    assert np.array_equal(parts["logits"], whole["out"].numpy())  # type: ignore[call-overload]
    assert np.array_equal(parts["map"], whole["map"].numpy())  # type: ignore[call-overload]


def test_a_network_of_several_outputs_is_refused_until_the_recipe_names_some() -> None:
    learning = learning_of("classification", TrainConfig())
    with pytest.raises(ConfigError, match="nothing says which of them the task uses") as error:
        require_outputs(network(), DataSpec(SHAPE, 5), learning)
    assert "out, map, aux" in str(error.value)
    assert "model.outputs" in str(error.value)
    with pytest.raises(ConfigError, match=r"model\.outputs names an output that the network does not give"):
        require_outputs(network("logits"), DataSpec(SHAPE, 5), learning)


def test_auxiliary_outputs_are_collected_where_they_are_asked_for() -> None:
    chosen, images = network("out"), torch.randn(2, *SHAPE)
    with training(chosen), auxiliary_outputs() as others:
        found = outputs_of(chosen, images)
    assert [other.shape for other in others] == [(2, 2, 8, 8), found.shape]
    others.clear()
    outputs_of(chosen, images)
    assert others == []


def test_channels_are_cut_in_auxiliary_layers_too() -> None:
    chosen, images = network("out"), torch.randn(2, *SHAPE)
    groups = find_groups(chosen, SHAPE)
    assert {group.name for group in groups} >= {"trunk.0"}
    assert not {"fc", "map", "aux.2"} & {group.name for group in groups}
    cut(chosen, groups, first_channels({"trunk.0": 8}))
    with outputs_as_they_are():
        whole = outputs_of(chosen, images)
    assert whole["aux"].shape == (2, 5)  # type: ignore[call-overload]


def test_operators_are_those_of_the_tasks_outputs() -> None:
    chosen = network("out")
    assert {operator.module for operator in list_operators(chosen, find_groups(chosen, SHAPE), SHAPE)} >= {"trunk.0", "fc"}
    traced = trace(chosen, SHAPE)
    assert not [node for node in traced.graph.nodes if str(node.target).startswith("aux")]


@pytest.mark.slow
@pytest.mark.parametrize("float_type", ["fp32", "fp16"])
def test_each_output_has_its_name_in_the_file_and_the_engine_joins_them(tmp_path: Path, float_type: str) -> None:
    joining, images = network("out", "map").eval(), torch.randn(3, *SHAPE)
    write_graph(joining, SHAPE, tmp_path / "model.onnx", opset=18, batch=None, dialect="float", float_type=float_type, outputs=SEVERAL)  # type: ignore[arg-type]
    model = onnx.load(tmp_path / "model.onnx")
    assert [output.name for output in model.graph.output] == ["logits", "map"]
    assert not any(tensor.name.startswith(("joining.", "halved.")) for tensor in model.graph.initializer)
    found = open_graph(tmp_path / "model.onnx")(images.numpy())
    with torch.no_grad():
        assert np.allclose(found, joining(images).numpy(), atol=1e-5 if float_type == "fp32" else 2e-2)
