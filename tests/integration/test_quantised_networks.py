"""What of a network is INT8 in the end: in the exported file, in ONNX Runtime's engine, in what TensorRT parses."""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.tensorrt_engine import rtx
from bonsai.stages.graph.audit import audit_graph, float_layers, require_dialect
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.graph.parity import compare
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.registry import build_network
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

SHAPE = (3, 64, 64)
HOST, RTX = load_profile("local-cpu").target, load_profile("rtx-4090").target


class Kinds(NamedTuple):
    """Expected operations: convolutions of the network, and INT8 kernels of ONNX Runtime."""

    convolutions: int
    depthwise_added: int = 0  # lone BatchNorms and average poolings
    products: int = 1
    additions: int = 0
    multiplications: int = 0
    concatenations: int = 0


NETWORKS = {
    "resnet18": Kinds(20, additions=8),
    "resnet50": Kinds(53, additions=16),
    "mobilenet_v2": Kinds(52, additions=10),
    "mobilenet_v3_small": Kinds(52, products=2, additions=6 + 19, multiplications=9 + 19),  # hardswish is one of either
    "efficientnet_b0": Kinds(81, additions=9, multiplications=16 + 49),
    "regnet_x_400mf": Kinds(71, additions=22),
    "regnet_y_400mf": Kinds(85, additions=16, multiplications=16),
    "densenet121": Kinds(120, depthwise_added=62 + 3, concatenations=58),
    "patterns": Kinds(5, depthwise_added=2, products=3, additions=2, multiplications=4, concatenations=1),
}
NETWORKS["asking"] = NETWORKS["patterns"]
FAST = {"patterns", "asking", "mobilenet_v3_small"}
CASES = [pytest.param(name, marks=() if name in FAST else pytest.mark.long) for name in NETWORKS]


class Patterns(nn.Module):
    """Everything that is quantised, by functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.lone_bn, self.point = nn.BatchNorm2d(32), nn.Conv2d(32, 16, 1)
        self.squeeze, self.excite = nn.Linear(16, 8), nn.Linear(8, 16)
        self.last, self.fc = nn.Conv2d(16, 16, 3, 1, 1), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.stem_bn(self.stem(x)))
        y = functional.hardswish(self.depthwise(x))
        y = torch.cat([functional.silu(self.grouped(y)), functional.dropout(y, 0.1, self.training)], 1)
        y = self.point(functional.max_pool2d(functional.relu(self.lone_bn(y)), 2)).clamp(0, 4)
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(y.mean((2, 3))))))
        y = torch.mul(y, gate.view(-1, 16, 1, 1).expand_as(y)) + functional.avg_pool2d(x, 2)
        y = functional.hardtanh(self.last(y), 0, 5) * functional.hardsigmoid(y)
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(y, 1), 1))


class Asking(Patterns):
    """The same, in a forward that torch.fx cannot trace."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[-2:]) < 16:
            raise ValueError("give larger images")
        return super().forward(x)


class Upsampled(nn.Module):
    """A transposed convolution beside a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.down_bn = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.up, self.up_bn = nn.ConvTranspose2d(16, 8, 2, 2, groups=2, bias=False), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(11, 10, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.up_bn(self.up(torch.relu(self.down_bn(self.down(x))))))
        return self.last(torch.cat([x, y], 1)).mean((2, 3))


def images(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shapes = functional.interpolate(torch.randn(count, 3, 8, 8, generator=generator), size=SHAPE[1:], mode="bilinear")
    return shapes + 0.3 * torch.randn(count, *SHAPE, generator=generator)


def trained_like(network: nn.Module) -> nn.Module:
    """Give BatchNorms the statistics of images, and one channel each without any weight."""
    network.train()
    with torch.no_grad():
        for seed in range(6):
            network(images(16, seed))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[0], module.bias[0] = 0, 0.5
    return network.eval()


def float_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"patterns": Patterns, "asking": Asking, "upsampled": Upsampled}
    return trained_like(own[name]() if name in own else build_network(ModelConfig(name=name), SHAPE, 10))


def quantised(network: nn.Module, dialect: Dialect) -> torch.fx.GraphModule:
    made = insert_quantizers(copy.deepcopy(network), SHAPE, Quantizers(dialect=dialect, weight_bits=8))
    calibrate(made, [images(16, 100)])
    return made.eval()


def export(network: torch.fx.GraphModule, dialect: Dialect, folder: Path) -> dict[str, int]:
    float_type: FloatType = "fp16" if dialect == "trt" else "fp32"
    exported = to_export_form(network, dialect, float_type)
    return write_graph(exported, SHAPE, folder / MODEL, opset=20, batch=None, dialect=dialect, float_type=float_type, quantised=count_quantised(exported)).audit


def relative(parity: dict[str, float]) -> float:
    return parity["mean_difference"] / parity["spread"]


@pytest.mark.parametrize("name", CASES)
def test_every_layer_is_int8_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    network, expected = float_network(name), NETWORKS[name]
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == expected.convolutions
    made = quantised(network, "ort")
    audit = export(made, "ort", tmp_path)
    assert float_layers(onnx.load(tmp_path / MODEL)) == ()
    assert audit["quantized_convs"] == audit["Conv"] == expected.convolutions + expected.depthwise_added
    assert audit["BatchNormalization"] == 0
    coverage = backend.build(tmp_path / MODEL, tmp_path / "engine.onnx", HOST, SHAPE)
    assert {kind: count for kind, count in coverage.items() if kind != "kernels"} == {
        "int8_convolutions": audit["Conv"],
        "float_convolutions": 0,
        "int8_products": expected.products,
        "float_products": 0,
        "int8_additions": expected.additions,
        "int8_multiplications": expected.multiplications,
        "int8_concatenations": expected.concatenations,
    }
    x = images(64, 200)
    assert relative(compare(made, backend.open_engine(tmp_path / "engine.onnx", HOST), x, CLASSIFICATION)) < 0.05
    assert relative(compare(network, lambda a: made(torch.from_numpy(a)).detach().numpy(), x, CLASSIFICATION)) < 0.1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: pip install 'bonsai-compress[rtx]'")
def test_every_layer_is_int8_in_the_network_that_tensorrt_parses(name: str, tmp_path: Path) -> None:
    network, expected = float_network(name), NETWORKS[name]
    made = quantised(network, "trt")
    audit = export(made, "trt", tmp_path)
    assert audit["quantized_convs"] == audit["Conv"] == expected.convolutions
    assert audit["unfolded_batchnorms"] == 0
    assert float_layers(onnx.load(tmp_path / MODEL)) == ()
    assert relative(compare(made, open_graph(tmp_path / MODEL), images(64, 200), CLASSIFICATION)) < 0.05
    coverage = rtx.build(tmp_path / MODEL, tmp_path / rtx.engine_file, RTX, SHAPE)
    assert coverage["network_convolutions"] == coverage["quantized_convolutions"] == expected.convolutions


@pytest.mark.parametrize(("simulated", "exported"), [("ort", "trt"), ("trt", "ort")])
def test_scales_of_one_dialect_serve_the_other(simulated: Dialect, exported: Dialect, tmp_path: Path) -> None:
    made = quantised(float_network("patterns"), simulated)
    export(made, exported, tmp_path)
    assert relative(compare(made, open_graph(tmp_path / MODEL), images(64, 200), CLASSIFICATION)) < 0.05


def test_a_transposed_convolution_is_int8_in_the_file_and_float_in_onnx_runtime(tmp_path: Path) -> None:
    network = float_network("upsampled")
    made = quantised(network, "ort")
    assert count_macs(made, SHAPE) == count_macs(network, SHAPE) == 32 * 32 * (27 * 16 + 16 * 4 * 4) + 64 * 64 * (99 * 10)
    export(made, "ort", tmp_path)
    assert float_layers(onnx.load(tmp_path / MODEL)) == ()
    coverage = backend.build(tmp_path / MODEL, tmp_path / "engine.onnx", HOST, SHAPE)
    assert (coverage["int8_convolutions"], coverage["float_convolutions"]) == (2, 1)
    assert relative(compare(made, backend.open_engine(tmp_path / "engine.onnx", HOST), images(64, 200), CLASSIFICATION)) < 0.05


def test_a_layer_kept_in_float_is_listed_and_allowed(tmp_path: Path) -> None:
    network = quantised(float_network("upsampled"), "ort")
    exported = to_export_form(network, "ort")
    kept = network.get_submodule("down")
    exported.set_submodule("down", nn.Sequential(kept.conv, kept.bn))
    write_graph(exported, SHAPE, tmp_path / MODEL, opset=20, batch=None, dialect="float", float_type="fp32")
    model = onnx.load(tmp_path / MODEL)
    assert float_layers(model) == ("down.0",)
    require_dialect(model, "ort", count_quantised(exported))


def test_a_float_batchnorm_behind_a_concatenation_is_exported(tmp_path: Path) -> None:
    network = float_network("patterns")
    audit = write_graph(network, SHAPE, tmp_path / MODEL, opset=20, batch=None, dialect="float", float_type="fp32").audit
    assert audit["BatchNormalization"] == 1
    assert audit == audit_graph(onnx.load(tmp_path / MODEL))
    assert relative(compare(network, open_graph(tmp_path / MODEL), images(16, 200), CLASSIFICATION)) < 1e-4
