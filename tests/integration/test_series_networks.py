"""A network of one-dimensional convolutions: INT8 in the file and in the engine of both dialects, and of the same outputs, whole and pruned."""

from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.tensorrt_engine import rtx
from bonsai.stages.graph.audit import float_layers
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.graph.parity import compare
from bonsai.stages.networks.cifar_resnet import series_resnet14
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

pytestmark = pytest.mark.slow

SHAPE = (3, 128)
CONVOLUTIONS = 15  # of the stem, twelve in blocks, two shortcuts
HOST, RTX = load_profile("local-cpu").target, load_profile("rtx-4090").target


class Pooled(nn.Module):
    """The rest of what a network of series may have: a depthwise convolution, max pooling, a bias, a dilation, functions in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise, self.point = nn.Conv1d(3, 32, 7, padding=3), nn.Conv1d(32, 32, 3, padding=2, dilation=2, groups=32), nn.Conv1d(32, 16, 1)
        self.bn, self.fc = nn.BatchNorm1d(16), nn.Linear(16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool1d(torch.relu(self.stem(x)), 2)
        x = torch.relu(self.bn(self.point(nn.functional.hardswish(self.depthwise(x)))))
        return self.fc(nn.functional.adaptive_avg_pool1d(x, 1).flatten(1))


def series(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).cumsum(2) / 8


def float_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = Pooled() if name == "pooled" else series_resnet14(in_channels=3, num_classes=7, width=32)
    with torch.no_grad():
        for seed in range(6):
            network(series(16, seed))
    if name == "pruned":
        kept = {group.name: tuple(range(0, group.width, 2)) for group in find_groups(network, SHAPE)}
        assert len(kept) == 3 + 6  # the three stages' sums, and the inside of each block
        cut(network, find_groups(network, SHAPE), kept)
        assert [m.out_channels for m in network.modules() if isinstance(m, nn.Conv1d)][:3] == [16, 16, 16]
    return network.eval()


def quantised(network: nn.Module, dialect: Dialect) -> torch.fx.GraphModule:
    made = insert_quantizers(network, SHAPE, Quantizers(dialect=dialect, weight_bits=8))
    calibrate(made, [series(64, 100)])
    return made.eval()


def export(network: torch.fx.GraphModule, dialect: Dialect, folder: Path) -> dict[str, int]:
    exported = to_export_form(network, dialect)
    return write_graph(exported, SHAPE, folder / MODEL, opset=20, batch=None, dialect=dialect, float_type="fp32", quantised=count_quantised(exported)).audit


def relative(parity: dict[str, float]) -> float:
    return parity["mean_difference"] / parity["spread"]


@pytest.mark.parametrize(("name", "convolutions"), [("whole", CONVOLUTIONS), ("pruned", CONVOLUTIONS), ("pooled", 3)])
def test_every_convolution_of_a_series_is_int8_in_onnx_runtime(name: str, convolutions: int, tmp_path: Path) -> None:
    made = quantised(float_network(name), "ort")
    audit = export(made, "ort", tmp_path)
    assert float_layers(onnx.load(tmp_path / MODEL)) == ()
    assert audit["quantized_convs"] == audit["Conv"] == convolutions
    assert audit["BatchNormalization"] == 0
    coverage = backend.build(tmp_path / MODEL, tmp_path / "engine.onnx", HOST, SHAPE)
    assert (coverage["int8_convolutions"], coverage["float_convolutions"], coverage["float_products"]) == (convolutions, 0, 0)
    x = series(64, 200)
    assert relative(compare(made, backend.open_engine(tmp_path / "engine.onnx", HOST), x, CLASSIFICATION)) < 0.05
    network = float_network(name)
    assert relative(compare(network, lambda a: made(torch.from_numpy(a)).detach().numpy(), x, CLASSIFICATION)) < 0.1


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: pip install 'bonsai-compress[rtx]'")
def test_every_convolution_of_a_series_is_int8_in_what_tensorrt_parses(tmp_path: Path) -> None:
    made = quantised(float_network("whole"), "trt")
    export(made, "trt", tmp_path)
    assert relative(compare(made, open_graph(tmp_path / MODEL), series(64, 200), CLASSIFICATION)) < 0.05
    coverage = rtx.build(tmp_path / MODEL, tmp_path / rtx.engine_file, RTX, SHAPE)
    assert coverage["network_convolutions"] == coverage["quantized_convolutions"] == CONVOLUTIONS
