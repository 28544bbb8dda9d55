"""Engines on the GPU of this machine, against ONNX Runtime on the same ONNX file."""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from several_inputs import IMAGES, NUMBERS, Measured

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Precision, Target
from bonsai.stages.backends.machine import list_gpus
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE
from bonsai.stages.backends.tensorrt_engine import RTX_CAPABILITIES, full, rtx
from bonsai.stages.backends.tensorrt_run import DISSECTED_RUNS
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.packed_inputs import joined_inputs, pack_inputs
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.store import Store

pytestmark = pytest.mark.gpu

SHAPE, BATCH = (1, 32, 32), 8


def target_here(runtime: str, *, required: bool) -> Target:
    """Return a target on this machine's first GPU; without the library the test is skipped, or fails where GPU tests are required."""
    gpu = list_gpus()[0]
    if runtime == "tensorrt-rtx" and gpu.sm not in RTX_CAPABILITIES:
        pytest.skip(f"TensorRT for RTX does not build for {gpu.name} (sm {gpu.sm})")
    overrides = {"target.runtime": runtime, "target.device.name": gpu.name, "target.device.sm": f'"{gpu.sm}"', "target.batch": BATCH}
    target = load_profile("rtx-4090", overrides).target
    try:
        metadata.version(backend_of(target).package)
    except metadata.PackageNotFoundError as error:
        (pytest.fail if required else pytest.skip)(f"{error} is not installed")
    return target


def graph_at(precision: Precision, target: Target, store: Store) -> OnnxGraph:
    model = ModelConfig(name="resnet8", options={"width": 16})
    form = graph_form(target.at(precision))
    return store.run(export_untrained, model=model, image_shape=SHAPE, num_classes=10, plan=WidthPlan(), **form._asdict(), opset=20, dense=None)


def run_built(graph: OnnxGraph, target: Target, folder: Path) -> Run:
    backend = backend_of(target)
    backend.build(graph.folder / MODEL, folder / backend.engine_file, target, graph.image_shape)
    return backend.open_engine(folder / backend.engine_file, target)


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
@pytest.mark.parametrize(("precision", "agreement", "difference"), [("fp32", 0.99, 0.01), ("fp16", 0.99, 0.01), ("int8", 0.95, 0.05)])
def test_engine_follows_onnxruntime(
    runtime: str, precision: Precision, agreement: float, difference: float, store: Store, tmp_path: Path, gpu_required: bool
) -> None:
    target = target_here(runtime, required=gpu_required)  # fp32: TF32 rounds to 10 bits; int8: single steps of 8 bits may fall to the other side
    graph = graph_at(precision, target, store)
    expected = open_graph(graph.folder / MODEL)(images(256))
    found = run_built(graph, target, tmp_path)(images(256))
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert (found.argmax(1) == expected.argmax(1)).mean() >= agreement
    assert np.abs(found - expected).mean() <= difference * expected.std()


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH, 2 * BATCH + 1])
def test_engine_takes_any_number_of_images(runtime: str, n: int, store: Store, tmp_path: Path, gpu_required: bool) -> None:
    target = target_here(runtime, required=gpu_required)
    run = run_built(graph_at("fp32", target, store), target, tmp_path)
    one_by_one = np.concatenate([run(image[None]) for image in images(n)])
    np.testing.assert_allclose(run(images(n)), one_by_one, atol=0.01 * one_by_one.std())


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_engine_takes_several_inputs_joined(runtime: str, tmp_path: Path, gpu_required: bool) -> None:
    target, form = target_here(runtime, required=gpu_required), Form("dict", ("image", "numbers"), ((1, 8, 8), (3,)))
    network, joined = pack_inputs(Measured().eval(), form), joined_inputs((IMAGES, NUMBERS))
    write_graph(network, (67,), tmp_path / MODEL, opset=20, batch=None, dialect="float", float_type="fp32", inputs=form.specs(None, "input"))
    backend = backend_of(target.at("fp32"))
    backend.build(tmp_path / MODEL, tmp_path / backend.engine_file, target.at("fp32"), (67,))
    found = backend.open_engine(tmp_path / backend.engine_file, target.at("fp32"))(joined.numpy())
    expected = network(joined).detach().numpy()
    assert np.abs(found - expected).mean() <= 0.01 * expected.std()


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_corrupt_engine_raises(runtime: str, tmp_path: Path, gpu_required: bool) -> None:
    target = target_here(runtime, required=gpu_required)
    (tmp_path / "engine.plan").write_bytes(b"no engine" * 100)
    with pytest.raises(DeviceUnavailable, match="the engine cannot be loaded here\n  given: "):
        backend_of(target).open_engine(tmp_path / "engine.plan", target)


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_describe_names_this_gpu(runtime: str, gpu_required: bool) -> None:
    target = target_here(runtime, required=gpu_required)
    info = backend_of(target).describe(target)
    assert info.present
    assert info.device == list_gpus()[0].name


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_parts_are_timed_and_layers_are_described(runtime: str, store: Store, tmp_path: Path, gpu_required: bool) -> None:
    target = target_here(runtime, required=gpu_required)
    backend = rtx if runtime == "tensorrt-rtx" else full
    graph = graph_at("fp16", target, store)
    backend.build(graph.folder / MODEL, tmp_path / backend.engine_file, target, graph.image_shape)
    parts, layers = backend.dissect(tmp_path / backend.engine_file, target, images(BATCH))
    assert parts.shape == (DISSECTED_RUNS, 3)
    assert (np.median(parts, axis=0) > 0).all()
    assert len(json.loads(layers)["Layers"]) > 0


def test_a_build_with_the_cache_of_an_earlier_one_leaves_the_same_cache(store: Store, tmp_path: Path, gpu_required: bool) -> None:
    target = target_here("tensorrt", required=gpu_required)
    graph = graph_at("fp16", target, store)
    for folder, given in ((tmp_path / "first", None), (tmp_path / "second", str(tmp_path / "first" / TIMING_CACHE))):
        folder.mkdir()
        full.build(graph.folder / MODEL, folder / full.engine_file, target.model_copy(update={"timing_cache": given}), graph.image_shape)
    first, second = ((tmp_path / name / TIMING_CACHE).read_bytes() for name in ("first", "second"))
    assert first == second
