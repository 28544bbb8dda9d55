"""Engines of TensorRT for RTX, built ahead of time: no GPU is needed."""

import json
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Precision
from bonsai.stages.backends import tensorrt_engine
from bonsai.stages.backends.registry import check_target
from bonsai.stages.backends.runtimes import GraphForm, graph_form
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE, Request
from bonsai.stages.backends.tensorrt_engine import TensorRTBackend, rtx
from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.compile import compile
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.store import Store

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: pip install 'bonsai-compress[rtx]'")

SHAPE = (1, 32, 32)
TARGET = load_profile("rtx-4090").target
CONVOLUTIONS = 9  # of resnet8: the first, two in each of three blocks, two on the shortcuts


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OnnxGraph]:
    store = Store(tmp_path_factory.mktemp("graphs"))
    model = ModelConfig(name="resnet8", options={"width": 16})
    forms = {precision: graph_form(TARGET.at(precision)) for precision in TARGET.precisions} | {"ort": GraphForm("ort", "fp32")}
    shape = {"model": model, "image_shape": SHAPE, "num_classes": 10, "plan": WidthPlan(), "opset": 20, "dense": None}
    return {name: store.run(export_untrained, **shape, dialect=form.dialect, float_type=form.float_type) for name, form in forms.items()}


@pytest.mark.parametrize(("precision", "quantized"), [("fp32", 0), ("fp16", 0), ("int8", CONVOLUTIONS)])
def test_compile_builds_an_engine_for_the_rtx_4090(graphs: dict[str, OnnxGraph], store: Store, precision: Precision, quantized: int) -> None:
    engine = store.run(compile, graph=graphs[precision], target=TARGET.at(precision), info=check_target(TARGET))
    assert engine.precision == precision
    assert engine.file == "engine.plan"
    assert sorted(path.name for path in engine.folder.glob("[!.]*")) == ["engine.plan", "manifest.json", MODEL]
    assert 100_000 < (engine.folder / engine.file).stat().st_size < 10_000_000
    assert engine.coverage["network_convolutions"] == CONVOLUTIONS
    assert engine.coverage["quantized_convolutions"] == quantized
    assert engine.coverage["quantize_layers"] == graphs[precision].audit["QuantizeLinear"]
    assert engine.coverage["dequantize_layers"] == graphs[precision].audit["DequantizeLinear"]


def test_an_engine_is_smaller_at_fp16(graphs: dict[str, OnnxGraph], store: Store) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        engine = store.run(compile, graph=graphs[precision], target=TARGET.at(precision), info=check_target(TARGET))
        sizes[precision] = (engine.folder / engine.file).stat().st_size
    assert sizes["fp16"] < sizes["fp32"]


@pytest.mark.parametrize("sm", tensorrt_engine.RTX_CAPABILITIES)
def test_build_serves_every_capability_that_is_not_refused(graphs: dict[str, OnnxGraph], tmp_path: Path, sm: str) -> None:
    target = load_profile("rtx-4090", {"target.device.sm": f'"{sm}"', "target.batch": 1}).target
    rtx.build(graphs["int8"].folder / MODEL, tmp_path / rtx.engine_file, target, SHAPE)
    assert (tmp_path / rtx.engine_file).is_file()


def test_an_fp16_engine_is_built_for_turing(graphs: dict[str, OnnxGraph], tmp_path: Path) -> None:
    rtx.build(graphs["fp16"].folder / MODEL, tmp_path / rtx.engine_file, load_profile("t4").target, SHAPE)
    assert (tmp_path / rtx.engine_file).is_file()


def test_an_fp32_build_still_fails_for_turing(graphs: dict[str, OnnxGraph], tmp_path: Path) -> None:
    target = load_profile("rtx-4090", {"target.device.sm": '"7.5"'}).target
    with pytest.raises(BuildError, match=r"tensorrt-rtx cannot build model.onnx:\n  .*FP32 GEMM is not supported"):
        rtx.build(graphs["fp32"].folder / MODEL, tmp_path / rtx.engine_file, target, SHAPE)


def test_the_builder_takes_the_flag_of_sparse_weights_and_their_layers_are_counted(graphs: dict[str, OnnxGraph], tmp_path: Path) -> None:
    """Whether sparse kernels are chosen only a GPU can show."""
    target = TARGET.model_copy(update={"sparse_weights": True})  # which the schema keeps for runtime tensorrt
    model = onnx.load(graphs["fp32"].folder / MODEL)
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] % 4 == 0]
    dense = rtx.build(graphs["fp32"].folder / MODEL, tmp_path / rtx.engine_file, target, SHAPE)
    for tensor in weights:
        value = numpy_helper.to_array(tensor).copy()
        value[:, np.arange(value.shape[1]) % 4 < 2] = 0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, tmp_path / MODEL)
    halved = rtx.build(tmp_path / MODEL, tmp_path / rtx.engine_file, target, SHAPE)
    assert len(weights) == CONVOLUTIONS - 1  # the first reads one channel
    assert (dense["sparse_layers"], halved["sparse_layers"]) == (0, len(weights))
    assert dense["sparse_eligible_layers"] == halved["sparse_eligible_layers"] == CONVOLUTIONS  # and the classifier


def test_a_timing_cache_is_written_and_read_by_the_next_build(graphs: dict[str, OnnxGraph], tmp_path: Path) -> None:
    """TensorRT for RTX times nothing, but takes the calls: that the same kernels are chosen only a GPU can show."""
    cache = tmp_path / TIMING_CACHE
    request = Request(
        library="tensorrt_rtx",
        graph=str(graphs["fp32"].folder / MODEL),
        engine=str(tmp_path / "engine.plan"),
        image_shape=SHAPE,
        batch=8,
        capability="SM89",
        timing_cache=str(cache),
    )
    sizes = []
    for _ in range(2):
        command = [sys.executable, "-P", str(tensorrt_engine.BUILD_FILE)]
        done = subprocess.run(command, input=json.dumps(asdict(request)), capture_output=True, text=True, check=True)
        assert json.loads(done.stdout.splitlines()[-1])["coverage"]["network_convolutions"] == CONVOLUTIONS
        sizes.append(cache.stat().st_size)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize(("content", "cause"), [(b"no protobuf", "Failed to parse the ONNX model"), (b"", "Network must have at least one output")])
def test_corrupt_graph_is_refused_and_leaves_no_file(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(BuildError, match=rf"^tensorrt-rtx cannot build model.onnx:\n  .*{cause}") as caught:
        rtx.build(tmp_path / MODEL, tmp_path / rtx.engine_file, TARGET, SHAPE)
    assert "Traceback" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL]


def test_failed_build_keeps_the_engine_that_was_there(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"no protobuf")
    (tmp_path / rtx.engine_file).write_bytes(b"earlier")
    with pytest.raises(BuildError):
        rtx.build(tmp_path / MODEL, tmp_path / rtx.engine_file, TARGET, SHAPE)
    assert (tmp_path / rtx.engine_file).read_bytes() == b"earlier"


def test_graph_of_another_shape_is_refused_in_the_builders_words(graphs: dict[str, OnnxGraph], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="profile has min=3, opt=3, max=3 but tensor has 1"):
        rtx.build(graphs["fp32"].folder / MODEL, tmp_path / rtx.engine_file, TARGET, (3, 32, 32))


def test_build_is_ended_when_it_takes_too_long(graphs: dict[str, OnnxGraph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_engine, "BUILD_SECONDS", 0.05)
    with pytest.raises(BuildError, match=r"tensorrt_rtx did not build model.onnx within 0.05 s; its process was ended"):
        rtx.build(graphs["int8"].folder / MODEL, tmp_path / rtx.engine_file, TARGET, SHAPE)
    assert list(tmp_path.iterdir()) == []


def test_missing_library_is_a_device_error(tmp_path: Path) -> None:
    missing = TensorRTBackend(library="tensorrt_missing", package="tensorrt-missing", ahead_of_time=True)
    with pytest.raises(DeviceUnavailable, match=r"given:   No module named 'tensorrt_missing'\n(.|\n)*pip install tensorrt-missing"):
        missing.build(tmp_path / MODEL, tmp_path / missing.engine_file, TARGET, SHAPE)


@pytest.mark.parametrize(("form", "precision"), [("ort", "int8"), ("fp32", "int8"), ("fp32", "fp16"), ("int8", "fp32")])
def test_compile_refuses_a_graph_of_another_form(graphs: dict[str, OnnxGraph], store: Store, form: str, precision: Precision) -> None:
    with pytest.raises(BuildError, match=rf"the graph is in dialect .*, but runtime 'tensorrt-rtx' at {precision} needs '(trt|float)' with fp(16|32)"):
        store.run(compile, graph=graphs[form], target=TARGET.at(precision), info=check_target(TARGET))
