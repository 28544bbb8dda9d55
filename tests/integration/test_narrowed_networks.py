"""A narrowed file of a network with gates and concatenations is what exporting the narrower network gives."""

import copy
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from bonsai.stages.backends.reference import require_runs
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.narrowing import narrow_graph, require_channels
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import first_channels
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


def exported(network: nn.Module, dialect: Dialect, file: Path) -> onnx.ModelProto:
    form = copy.deepcopy(network)
    if dialect != "float":
        quantised = insert_quantizers(form, SHAPE, Quantizers(dialect=dialect, weight_bits=8))
        calibrate(quantised, [torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))])
        assert isinstance(quantised, fx.GraphModule)
        form = to_export_form(quantised, dialect)
    write_graph(form, SHAPE, file, opset=20, batch=None, dialect=dialect, float_type="fp32")
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
