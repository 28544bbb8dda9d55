"""Execution providers of ONNX Runtime; those that are not installed here are refused before anything is built."""

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tiny_package import SHAPE, make_package, write_graph

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Target
from bonsai.stages.backends.onnxruntime_providers import cuda, openvino, require_provider, tensorrt
from bonsai.stages.backends.operator_timing import measure_operator
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of, check_target
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.graph.names import INPUT

HERE = ort.get_available_providers()
installed = pytest.mark.skipif(openvino.provider not in HERE, reason="onnxruntime-openvino is not installed in place of onnxruntime")
ON_GPU = {"target.runtime": "onnxruntime", "target.runtime_version": '">=1.22,<2"'}


def target_of(provider: str, **changes: object) -> Target:
    on_gpu = provider in ("cuda", "tensorrt")
    overrides = {"target.provider": provider, **(ON_GPU if on_gpu else {}), **({"target.precisions": "[fp32, fp16]"} if provider == "cuda" else {})}
    return load_profile("rtx-4090" if on_gpu else "local-cpu", overrides).target.model_copy(update=changes)


@pytest.mark.parametrize(("provider", "backend"), [("openvino", openvino), ("cuda", cuda), ("tensorrt", tensorrt)])
def test_a_provider_is_a_backend(provider: str, backend: object) -> None:
    target = target_of(provider)
    assert backend_of(target) is backend
    backend_of(target).refuse_unsupported(target)


@pytest.mark.parametrize(("provider", "dialect", "float_type"), [("openvino", "ort", "fp32"), ("tensorrt", "trt", "fp16")])
def test_int8_is_written_in_the_providers_dialect(provider: str, dialect: str, float_type: str) -> None:
    assert graph_form(target_of(provider).at("int8")) == (dialect, float_type)


def test_int8_is_refused_where_the_provider_would_compute_in_float() -> None:
    target = target_of("cuda").model_copy(update={"precisions": ("fp32", "fp16", "int8")})
    with pytest.raises(ConfigError, match=r"given:   int8\n  allowed: fp32, fp16\n  do:      take int8 from target.precisions, or change target.provider"):
        cuda.refuse_unsupported(target)


@pytest.mark.parametrize("provider", ["openvino", "cuda", "tensorrt"])
def test_a_wheel_that_is_not_installed_is_named(provider: str) -> None:
    target = target_of(provider)
    package = backend_of(target).package
    if package in {found.name for found in metadata.distributions()}:
        pytest.skip(f"{package} is installed")
    with pytest.raises(DeviceUnavailable, match=rf"runtime 'onnxruntime/{provider}' is not installed\n(.|\n)*pip install '{package}>=") as caught:
        check_target(target)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("backend", [openvino, cuda, tensorrt])
def test_a_wheel_that_another_one_overwrote_is_refused(backend: object) -> None:
    provider, package = backend.provider, backend.package  # type: ignore[attr-defined]
    if provider in HERE:
        pytest.skip(f"{provider} is here")
    with pytest.raises(DeviceUnavailable, match=rf"no usable {provider}(.|\n)*CPUExecutionProvider\n(.|\n)*pip install --force-reinstall {package}:"):
        require_provider(provider, package)


def test_an_engine_of_a_gpu_that_is_not_here_is_not_opened(tmp_path: Path) -> None:
    target = target_of("cuda")
    device = target.device.model_copy(update={"sm": "99.9"})
    with pytest.raises(DeviceUnavailable, match=r"engines of runtime 'onnxruntime/cuda' for GeForce RTX 4090 are run where the GPU is"):
        cuda.open_engine(tmp_path / "model.onnx", target.model_copy(update={"device": device}))


@installed
@pytest.mark.parametrize("batch", [1, 4])
def test_openvino_takes_the_whole_graph_and_gives_its_logits(tmp_path: Path, batch: int) -> None:
    target = target_of("openvino", precision="fp32", batch=batch)
    assert check_target(target).runtime == "onnxruntime/openvino"
    write_graph(tmp_path / "graph.onnx")
    assert openvino.build(tmp_path / "graph.onnx", tmp_path / "model.onnx", target, SHAPE) == {"nodes": 4, "parts": 1}
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "graph.onnx").read_bytes()
    images = np.random.default_rng(0).standard_normal((6, *SHAPE)).astype(np.float32)
    run = openvino.open_engine(tmp_path / "model.onnx", target)
    np.testing.assert_allclose(run(images), open_graph(tmp_path / "graph.onnx")(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(images[:1]), run(images)[:1], rtol=1e-5, atol=1e-6)


@installed
def test_a_node_that_the_provider_leaves_to_the_cpu_is_a_build_error(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8, 8]) for name in (INPUT, "output")]
    nodes = [helper.make_node("Relu", [INPUT], ["x"]), helper.make_node("Inverse", ["x"], ["output"], domain="com.microsoft")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "mixed", ends[:1], ends[1:]), opset_imports=opsets, ir_version=10), tmp_path / "model.onnx")
    with pytest.raises(BuildError, match=r"with OpenVINOExecutionProvider alone: .*assigned to the default CPU EP"):
        openvino.build(tmp_path / "model.onnx", tmp_path / "model.onnx", target_of("openvino"), (8, 8, 8))


@installed
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvinos_operators_are_timed(tmp_path: Path, precision: str) -> None:
    wide = OperatorClass(op="conv", kernel=3, stride=1, height=16, width=16, epilogue="add_relu")
    target = target_of("openvino", precision=precision)
    narrow, full = (measure_operator(wide, c, c, target, scratch=tmp_path)[0] for c in (16, 128))
    assert full.p50_us > 2 * narrow.p50_us  # 64 times the work, above some 20 microseconds that a call of the provider takes
    assert "OpenVINO" in full.kernels


@installed
def test_a_package_for_openvino_is_verified(tmp_path: Path) -> None:
    profile = load_profile("local-cpu", {"target.provider": "openvino", "target.precision": "fp32"})
    package = make_package(tmp_path, profile)
    assert not (package / "engine.onnx").exists()
    assert any("onnxruntime-openvino" in line and "gives the golden outputs" in line for line in verify_package(package))
