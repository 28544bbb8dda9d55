"""Engines of ONNX Runtime and OpenVINO from the same ONNX files, on this machine's CPU."""

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Precision, Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.kernel_profile import profile_kernels
from bonsai.stages.backends.onnxruntime_engine import write_ort_format
from bonsai.stages.backends.operator_timing import measure_operator
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of, check_target
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect, OnnxGraph
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.compile import compile
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.store import Store

SHAPE = (1, 32, 32)
CONVOLUTIONS = 9  # of resnet8: the first, two in each of three blocks, two on the shortcuts
PRECISIONS: dict[Precision, Dialect] = {"fp32": "float", "int8": "ort"}


missing = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed: pip install 'bonsai-compress[openvino]'")
PROFILES = ["local-cpu", pytest.param("local-cpu-openvino", marks=missing)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[Dialect, OnnxGraph]:
    store = Store(tmp_path_factory.mktemp("graphs"))
    model = ModelConfig(name="resnet8", options={"width": 32})
    dialects: tuple[Dialect, ...] = ("float", "ort", "trt")
    return {
        d: store.run(export_untrained, model=model, image_shape=SHAPE, num_classes=10, plan=WidthPlan(), dialect=d, float_type="fp32", opset=20, dense=None)
        for d in dialects
    }


def target_of(profile: str, precision: Precision = "int8", **changes: int) -> Target:
    return load_profile(profile).target.model_copy(update={"precision": precision, **changes})


def build(store: Store, graphs: dict[Dialect, OnnxGraph], target: Target) -> Engine:
    return store.run(compile, graph=graphs[PRECISIONS[target.precision]], target=target, info=check_target(target))


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_has_the_precision_that_was_asked_and_gives_the_graphs_logits(
    graphs: dict[Dialect, OnnxGraph], store: Store, profile: str, precision: Precision
) -> None:
    target = target_of(profile, precision)
    engine = build(store, graphs, target)
    assert sorted(path.name for path in engine.folder.glob("[!.]*")) == sorted([engine.file, "manifest.json", MODEL])
    counts = (engine.coverage["int8_convolutions"], engine.coverage["float_convolutions"])
    assert counts == ((0, CONVOLUTIONS) if precision == "fp32" else (CONVOLUTIONS, 0))
    images = random_images(20)
    run = backend_of(target).open_engine(engine.folder / engine.file, target)
    found = np.concatenate([run(images[i : i + 1]) for i in range(len(images))])
    expected = open_graph(engine.folder / MODEL)(images)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < (1e-5 if precision == "fp32" else 0.02)  # INT8 runtimes round otherwise, and so would another CPU


@missing
def test_an_openvino_engine_runs_the_other_dialect_as_int8_too_but_with_more_kernels(graphs: dict[Dialect, OnnxGraph], tmp_path: Path) -> None:
    target = target_of("local-cpu-openvino")
    made = {d: backend_of(target).build(graphs[d].folder / MODEL, tmp_path / d, target, SHAPE) for d in ("ort", "trt")}
    assert made["ort"]["int8_convolutions"] == made["trt"]["int8_convolutions"] == CONVOLUTIONS
    assert made["ort"]["kernels"] < made["trt"]["kernels"]


@pytest.mark.parametrize("profile", PROFILES)
def test_images_beside_the_batch_are_run_in_turns(graphs: dict[Dialect, OnnxGraph], store: Store, profile: str) -> None:
    single, batched = target_of(profile), target_of(profile, batch=4)
    images = random_images(6)
    runs = {t.batch: backend_of(t).open_engine((e := build(store, graphs, t)).folder / e.file, t) for t in (single, batched)}
    one_by_one = np.concatenate([runs[1](images[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(runs[4](images), one_by_one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(runs[4](images[:1]), one_by_one[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("profile", PROFILES)
def test_one_thread_means_the_callers_whose_clock_judges(graphs: dict[Dialect, OnnxGraph], store: Store, profile: str) -> None:
    target = target_of(profile, "fp32")
    engine = build(store, graphs, target)
    run, images = backend_of(target).open_engine(engine.folder / engine.file, target), random_images(1)
    process, thread = time.process_time(), time.thread_time()
    for _ in range(500):
        run(images)
    process, thread = time.process_time() - process, time.thread_time() - thread
    assert thread > 0.02
    assert process == pytest.approx(thread, rel=0.1)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_says_what_share_the_int8_kernels_have(graphs: dict[Dialect, OnnxGraph], store: Store, tmp_path: Path, profile: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shares = {}
    for precision in PRECISIONS:
        target = target_of(profile, precision)
        engine = build(store, graphs, target)
        kernels = profile_kernels(engine.folder / engine.file, target, random_images(target.batch), scratch=scratch)
        assert sum(kernel.share for kernel in kernels) == pytest.approx(1)
        assert [kernel.share for kernel in kernels] == sorted((kernel.share for kernel in kernels), reverse=True)
        (convolutions,) = [kernel for kernel in kernels if "Conv" in kernel.op]
        assert convolutions == kernels[0]
        assert convolutions.count == CONVOLUTIONS
        assert convolutions.precision == ("float" if precision == "fp32" else "int8")
        shares[precision] = sum(kernel.share for kernel in kernels if kernel.precision == "int8")
    assert shares["fp32"] == 0
    assert 0.5 < shares["int8"] <= 1
    assert list(scratch.iterdir()) == []


@missing
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_operator_is_timed_by_the_targets_own_runtime(tmp_path: Path, precision: Precision) -> None:
    wide = OperatorClass(op="conv", kernel=3, stride=1, height=16, width=16, epilogue="add_relu")
    target = target_of("local-cpu-openvino", precision)
    narrow_us, wide_us = (measure_operator(wide, c, c, target, scratch=tmp_path)[0] for c in (16, 128))
    assert narrow_us.kernels == wide_us.kernels == "Convolution"  # addition and activation are fused into it
    assert 3 < wide_us.p50_us / narrow_us.p50_us < 100  # 64 times the work, which AMX does in 6 times the time


def test_an_onnxruntime_engine_can_be_written_for_a_minimal_build(graphs: dict[Dialect, OnnxGraph], store: Store, tmp_path: Path) -> None:
    target = target_of("local-cpu")
    engine = build(store, graphs, target)
    write_ort_format(engine.folder / engine.file, tmp_path / "engine.ort")
    assert (tmp_path / "engine.ort").read_bytes()[4:8] == b"ORTM"
    images = random_images(3)
    original, written = (backend_of(target).open_engine(file, target)(images) for file in (engine.folder / engine.file, tmp_path / "engine.ort"))
    np.testing.assert_array_equal(original, written)
