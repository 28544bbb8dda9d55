"""A narrowed file is what exporting the narrower network gives."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from torch import nn

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
