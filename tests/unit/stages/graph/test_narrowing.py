"""A narrowed file is what exporting the narrower network gives."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional

from bonsai.stages.graph.narrowing import CannotNarrow, narrow_graph, require_channels
from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.store import Store

WIDTHS = {"conv1": 8, "layer1.0.conv1": 4, "layer2.0.conv1": 12, "layer2.0.conv2": 32, "layer3.0.conv1": 20, "layer3.0.conv2": 16}


def shapes(file: Path) -> Counter[tuple[tuple[int, ...], int]]:
    return Counter((tuple(tensor.dims), tensor.data_type) for tensor in onnx.load(file).graph.initializer if len(tensor.dims) > 1)


@pytest.mark.parametrize(
    ("dialect", "float_type", "keep_float"),
    [("float", "fp32", ()), ("float", "fp16", ()), ("ort", "fp32", ()), ("trt", "fp16", ()), ("ort", "fp32", ("conv1", "layer2.0.conv1"))],
)
def test_a_narrowed_file_has_the_nodes_and_weights_of_an_export(dialect: Dialect, float_type: FloatType, keep_float: tuple[str, ...], tmp_path: Path) -> None:
    store = Store(tmp_path)
    form = {"dialect": dialect, "float_type": float_type, "keep_float": keep_float, "opset": 20}
    shape = {"model": ModelConfig(name="resnet8"), "image_shape": (1, 16, 16), "num_classes": 10, **form}
    dense = store.run(export_untrained, **shape, plan=WidthPlan(), dense=None)
    narrowed = store.run(export_untrained, **shape, plan=WidthPlan(widths=WIDTHS), dense=dense)
    exported = store.run(export_untrained, **shape, plan=WidthPlan(widths=WIDTHS), dense=None)
    files = [artifact.folder / "model.onnx" for artifact in (narrowed, exported)]
    nodes = [[(node.op_type, [str(a) for a in node.attribute]) for node in onnx.load(file).graph.node] for file in files]
    assert nodes[0] == nodes[1]
    assert shapes(files[0]) == shapes(files[1]) != shapes(dense.folder / "model.onnx")
    assert (narrowed.macs, narrowed.parameters, narrowed.audit) == (exported.macs, exported.parameters, exported.audit)
    for file in files:
        session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert session.run(None, {"input": np.zeros((2, 1, 16, 16), np.float32)})[0].shape == (2, 10)


def test_depthwise_convolutions_keep_their_groups(tmp_path: Path) -> None:
    shape = {"model": ModelConfig(name="mobilenet_v2"), "image_shape": (3, 32, 32), "num_classes": 10, "dialect": "float", "float_type": "fp32", "opset": 20}
    store = Store(tmp_path)
    dense = store.run(export_untrained, **shape, plan=WidthPlan(), dense=None)
    widths = {"features.2.conv.0.0": 48, "features.17.conv.0.0": 320}
    narrowed = store.run(export_untrained, **shape, plan=WidthPlan(widths=widths), dense=dense)
    model = onnx.load(narrowed.folder / "model.onnx")
    groups = [attribute.i for node in model.graph.node if node.op_type == "Conv" for attribute in node.attribute if attribute.name == "group"]
    assert {48, 320} <= set(groups)
    session = ort.InferenceSession(str(narrowed.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": np.zeros((1, 3, 32, 32), np.float32)})[0].shape == (1, 10)


def test_what_is_not_in_the_graph_under_its_name_is_refused() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    empty = onnx.ModelProto()
    with pytest.raises(CannotNarrow, match=r"no weight .*conv"):
        narrow_graph(empty, network, find_groups(network, (1, 16, 16)), {"layer1.0.conv1": 8})
    with pytest.raises(CannotNarrow, match="channels, not"):
        require_channels(empty, {"conv1": (1, 16)})
    assert isinstance(network.conv1, nn.Conv2d)


class Grouped(nn.Module):
    """A grouped convolution between two others; whole groups leave it where there are many, else a channel of every group."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.first, self.grouped, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=groups), nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.grouped(self.first(x).relu()).relu()).mean((2, 3))


class Halves(nn.Module):
    """A convolution whose halves are added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).relu().chunk(2, 1)
        return self.last(left + right).mean((2, 3))


class Pieces(nn.Module):
    """A convolution that is split into parts of the sizes of an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [6, 10]
        self.first, self.left, self.right = nn.Conv2d(3, 16, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(10, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).relu().split(self.sizes, 1)
        return (self.left(left) + self.right(right)).mean((2, 3))


class Scaled(nn.Module):
    """A convolution, and a parameter that scales its channels, or a LayerNorm of them."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Linear(16, 5)
        self.scale = nn.LayerNorm(16) if norm else nn.Parameter(torch.rand(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        return self.last(functional.relu(self.scale(x) if isinstance(self.scale, nn.LayerNorm) else x * self.scale)).mean((1, 2))


class Reshaped(nn.Module):
    """A network that reshapes to a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).view(len(x), self.width, -1).mean(2))


@pytest.mark.parametrize(
    ("network", "group", "reason"),
    [
        (Grouped(8), "first", "a channel of first is several positions of first"),
        (Grouped(2), "grouped", "grouped has 2 groups"),
        (Halves(), "first", "a channel of first is several positions of first"),
        (Pieces(), "first[6]", "sizes goes with the channels of first"),
        (Scaled(norm=True), "first", "scale is a LayerNorm"),
        (Scaled(norm=False), "first", "scale goes with the channels of first"),
        (Reshaped(), "first", "width goes with the channels of first"),
    ],
    ids=["whole groups", "a channel of every group", "halves", "a split", "LayerNorm", "a parameter", "a reshape"],
)
def test_channels_that_are_elsewhere_than_in_the_weights_of_layers_are_refused(network: nn.Module, group: str, reason: str) -> None:
    groups = find_groups(network.eval(), (3, 8, 8))
    shape = numpy_helper.from_array(np.array([1, 16, -1]), "shape")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [shape]))
    narrow = {each.name: 1 for each in groups if each.name == group}
    assert narrow
    with pytest.raises(CannotNarrow, match=f"^{re.escape(reason)}"):
        narrow_graph(model, network, groups, narrow)
    assert narrow_graph(model, network, groups, {each.name: each.width for each in groups}) == model


def test_a_number_of_the_network_that_the_graph_does_not_hold_does_not_matter() -> None:
    network = Reshaped().eval()
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in network.named_parameters()]
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["y"]),
        helper.make_node("ReduceMean", ["y"], ["z"], keepdims=0),
        helper.make_node("Gemm", ["z", "last.weight", "last.bias"], ["out"], transB=1),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], weights))
    narrowed = narrow_graph(model, network, find_groups(network, (3, 8, 8)), {"first": 4})
    assert {tensor.name: tuple(tensor.dims) for tensor in narrowed.graph.initializer} == {
        "first.weight": (4, 3, 1, 1),
        "first.bias": (4,),
        "last.weight": (5, 4),
        "last.bias": (5,),
    }
