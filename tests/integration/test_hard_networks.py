"""Networks that a compressor gets wrong easily, as INT8 files: they are what torch simulates, and what is left in float is counted."""

import copy
from importlib.util import find_spec
from pathlib import Path

import hard_networks
import pytest
import torch
from torch import nn

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.graph.parity import compare
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import count_float_convolutions
from bonsai.stages.quantization.proof import vary
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

pytestmark = pytest.mark.slow  # two exports of every network

SHAPE = (3, 16, 16)
HOST = load_profile("local-cpu").target
NAMES = [
    *("TrainingNoise", "FunctionalDropout", "FusedNorm", "SharedConvolution", "Siamese", "Hooked"),
    *("ChannelAttention", "AttentionPool", "CosineHead", "ReflectPadding"),
]
INT8_CONVOLUTIONS = {"FusedNorm": 4, "ChannelAttention": 4, "SharedConvolution": 7, "Siamese": 6, "ReflectPadding": 2}
FLOAT_CONVOLUTIONS = {"Hooked": 1, "ReflectPadding": 1}


def quantised(name: str, dialect: Dialect) -> tuple[nn.Module, torch.fx.GraphModule, Quantizers]:
    torch.manual_seed(0)
    network = getattr(hard_networks, name)()
    vary(network, SHAPE, 1)
    state = Quantizers(dialect=dialect, weight_bits=8)
    made = insert_quantizers(copy.deepcopy(network), SHAPE, state)
    calibrate(made, [torch.randn(32, *SHAPE)])
    return network.eval(), made.eval(), state


def export(made: torch.fx.GraphModule, dialect: Dialect, folder: Path) -> None:
    float_type: FloatType = "fp16" if dialect == "trt" else "fp32"
    exported = to_export_form(made, dialect, float_type)
    write_graph(exported, SHAPE, folder / MODEL, opset=20, batch=None, dialect=dialect, float_type=float_type, quantised=count_quantised(exported))


def relative(parity: dict[str, float]) -> float:
    return parity["mean_difference"] / parity["spread"]


@pytest.mark.parametrize("name", NAMES)
def test_the_int8_file_is_what_torch_simulates_and_float_convolutions_are_those_that_were_left(name: str, tmp_path: Path) -> None:
    network, made, state = quantised(name, "ort")
    export(made, "ort", tmp_path)
    images = torch.randn(32, *SHAPE)
    coverage = backend.build(tmp_path / MODEL, tmp_path / "engine.onnx", HOST, SHAPE)
    assert relative(compare(made, backend.open_engine(tmp_path / "engine.onnx", HOST), images, CLASSIFICATION)) < 0.02
    assert relative(compare(network, lambda array: made(torch.from_numpy(array)).detach().numpy(), images, CLASSIFICATION)) < 0.25
    assert coverage["int8_convolutions"] == INT8_CONVOLUTIONS.get(name, 3)
    assert coverage["float_convolutions"] == FLOAT_CONVOLUTIONS.get(name, 0) == count_float_convolutions(made, state, SHAPE).most


@pytest.mark.parametrize("name", NAMES)
def test_tensorrts_file_is_what_torch_simulates(name: str, tmp_path: Path) -> None:
    _, made, _ = quantised(name, "trt")
    export(made, "trt", tmp_path)
    assert relative(compare(made, open_graph(tmp_path / MODEL), torch.randn(32, *SHAPE), CLASSIFICATION)) < 0.03


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed: pip install 'bonsai-compress[openvino]'")
def test_openvino_compiles_the_int8_file(name: str, tmp_path: Path) -> None:
    _, made, _ = quantised(name, "ort")
    export(made, "ort", tmp_path)
    target = HOST.model_copy(update={"runtime": "openvino"})
    coverage = backend_of(target).build(tmp_path / MODEL, tmp_path / "engine.blob", target, SHAPE)
    assert coverage["int8_convolutions"] >= 2


@pytest.mark.parametrize("name", ["TrainingNoise", "SharedConvolution", "Siamese", "Hooked", "ReflectPadding"])
def test_the_float_file_is_what_torch_computes(name: str, tmp_path: Path) -> None:
    network, _, _ = quantised(name, "ort")
    write_graph(network, SHAPE, tmp_path / MODEL, opset=20, batch=None, dialect="float", float_type="fp32")
    assert relative(compare(network, open_graph(tmp_path / MODEL), torch.randn(16, *SHAPE), CLASSIFICATION)) < 1e-4
