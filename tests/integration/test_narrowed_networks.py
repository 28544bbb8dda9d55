"""A narrowed file is what exporting the narrower network gives: of a network with gates and concatenations, of a MobileNet, and of one of series."""

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import fx, nn
from torch.nn import functional

from bonsai.stages.backends.reference import open_graph, require_runs
from bonsai.stages.graph.audit import float_layers
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.narrowing import narrow_graph, require_channels
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group, Widths, first_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.selection.operator_records import weight_channels
from bonsai.stages.selection.operators import list_operators

pytestmark = pytest.mark.slow  # many exports

SHAPE = (3, 16, 16)
WIDTHS = {"grow": 4, "point": 24, "squeeze": 5, "hidden": 12}


class Dense(nn.Module):
    """A BatchNorm behind a concatenation, an average pooling, a gate, a grouped convolution, and a linear layer with an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grow = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 8, 3, 1, 1)
        self.lone_bn, self.point, self.point_bn = nn.BatchNorm2d(24), nn.Conv2d(24, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.depthwise, self.whole, self.grouped = nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 3, groups=4)
        self.hidden, self.fc = nn.Linear(16, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = self.point(torch.relu(self.lone_bn(torch.cat([x, self.grow(x)], 1))))
        x = functional.silu(self.depthwise(functional.avg_pool2d(functional.relu6(self.point_bn(x)), 2)))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.relu(self.grouped(torch.relu(self.whole(x))))
        return self.fc(functional.hardswish(self.hidden(functional.adaptive_avg_pool2d(x, 1).flatten(1))))


def exported(network: nn.Module, dialect: Dialect, file: Path, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    form = copy.deepcopy(network)
    if dialect != "float":
        quantised = insert_quantizers(form, shape, Quantizers(dialect=dialect, weight_bits=8))
        calibrate(quantised, [torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))])
        assert isinstance(quantised, fx.GraphModule)
        form = to_export_form(quantised, dialect)
    write_graph(form, shape, file, opset=20, batch=None, dialect=dialect, float_type="fp32")
    return onnx.load(file)


def nodes(model: onnx.ModelProto) -> list[tuple[str, list[str]]]:
    return [(node.op_type, [str(attribute) for attribute in node.attribute]) for node in model.graph.node]


def shapes(model: onnx.ModelProto) -> Counter[tuple[tuple[int, ...], int]]:
    return Counter((tuple(tensor.dims), tensor.data_type) for tensor in model.graph.initializer if len(tensor.dims) > 1)


@pytest.mark.parametrize("dialect", ["float", "ort", "trt"])
def test_a_narrowed_file_has_the_nodes_and_weights_of_an_export(dialect: Dialect, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Dense().eval()
    groups = find_groups(network, SHAPE)
    pattern = exported(network, dialect, tmp_path / MODEL)
    narrowed = narrow_graph(pattern, network, groups, WIDTHS)
    narrower = copy.deepcopy(network)
    cut(narrower, groups, first_channels(WIDTHS))
    again = exported(narrower, dialect, tmp_path / "again.onnx")
    assert nodes(narrowed) == nodes(again)
    assert shapes(narrowed) == shapes(again) != shapes(pattern)
    widths = {group.name: group.width for group in groups} | WIDTHS
    require_channels(narrowed, weight_channels(list_operators(network, groups, SHAPE), widths))
    onnx.save(narrowed, tmp_path / "narrowed.onnx")
    require_runs(tmp_path / "narrowed.onnx", SHAPE)


MOBILENET = ModelConfig(name="timm/mobilenetv2_140", options={"output_stride": 8}), (1, 32, 32)
SERIES = ModelConfig(name="series_resnet14", options={"width": 32}), (3, 128)


@pytest.mark.parametrize("dialect", ["float", "ort", "trt"])
@pytest.mark.parametrize(("model", "shape"), [MOBILENET, SERIES], ids=["mobilenet", "series"])
def test_a_narrowed_file_computes_what_the_whole_one_does_where_nothing_reads_what_left(
    model: ModelConfig, shape: tuple[int, ...], dialect: Dialect, tmp_path: Path
) -> None:
    network = build_network(model, shape, 7)
    with torch.no_grad():
        network.train()(torch.randn(8, *shape, generator=torch.Generator().manual_seed(1)))  # other statistics than 0 and 1
    network.eval()
    groups = find_groups(network, shape)
    widths = {
        group.name: max(8, int(group.width * share) // 8 * 8)
        for group, share in zip(groups, np.random.default_rng(0).uniform(0.3, 1, len(groups)), strict=True)
    }
    pattern = exported(network, dialect, tmp_path / MODEL, shape)
    narrowed = narrow_graph(pattern, network, groups, widths)
    narrower = copy.deepcopy(network)
    cut(narrower, groups, first_channels(widths))
    again = exported(narrower, dialect, tmp_path / "again.onnx", shape)
    assert nodes(narrowed) == nodes(again)
    assert float_layers(narrowed) == float_layers(again)
    assert bool(float_layers(narrowed)) == (dialect == "float")
    onnx.save(narrowed, tmp_path / "narrowed.onnx")
    onnx.save(unread(pattern, network, groups, widths), tmp_path / "unread.onnx")
    images = np.random.default_rng(1).normal(size=(16, *shape)).astype(np.float32)
    found, whole = (open_graph(tmp_path / f"{name}.onnx")(images) for name in ("narrowed", "unread"))
    assert found.std() > 0
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5 if dialect == "float" else 0)  # sums of integers have no order


def unread(pattern: onnx.ModelProto, network: nn.Module, groups: tuple[Group, ...], widths: Widths) -> onnx.ModelProto:
    """Return the whole file with weights of 0 for the channels that leave."""
    gone: dict[str, set[int]] = {}
    for group in groups:
        for member in group.members:
            plain = isinstance(layer := network.get_submodule(member.module), nn.Conv1d | nn.Conv2d | nn.Linear) and getattr(layer, "groups", 1) == 1
            if plain and member.side == "in":
                left = {index for index, channel in zip(member.indices, member.channels, strict=True) if channel >= widths[group.name]}
                gone.setdefault(f"{member.module}.weight", set()).update(left)
    model = onnx.ModelProto()
    model.CopyFrom(pattern)
    for tensor in model.graph.initializer:
        if left := gone.pop(tensor.name, None):
            weight = numpy_helper.to_array(tensor).copy()
            weight[:, sorted(left)] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    assert not gone
    return model
