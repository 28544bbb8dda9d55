from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Target
from bonsai.stages.backends import apart, reference
from bonsai.stages.backends.apart import build_engine, run_engine
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.reference import try_graph
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.probes import load_outputs, probe_images, save_outputs

SHAPE = (3, 4, 4)
WEIGHT = np.random.default_rng(0).standard_normal((3, 10))


def write_tokens(folder: Path, *, half: bool, weight: np.ndarray = WEIGHT) -> Path:
    """Write a network that takes an image as tokens.

    The batch comes second, as in torch's attention: at this product of transposed FP16 tokens an optimiser of ONNX Runtime 1.32 ends the process.
    """
    kind, number = (np.float16, onnx.TensorProto.FLOAT16) if half else (np.float32, onnx.TensorProto.FLOAT)
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=number),
        helper.make_node("Reshape", ["pixels", "shape"], ["triples"]),
        helper.make_node("Transpose", ["triples"], ["tokens"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["tokens", "weight"], ["products"]),
        helper.make_node("ReduceMean", ["products", "axes"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["logits"], to=onnx.TensorProto.FLOAT),
    ]
    constants = {"shape": np.array([0, 16, 3]), "axes": np.array([0]), "weight": weight.astype(kind)}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape]) for name, shape in (("input", SHAPE), ("logits", (10,)))]
    graph = helper.make_graph(nodes, "tokens", ends[:1], ends[1:], [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    save_outputs(folder, probe_images(SHAPE, 4).reshape(4, 16, 3).mean(1) @ WEIGHT)
    return folder / "model.onnx"


@pytest.fixture
def target() -> Target:
    return load_profile("local-cpu").target.at("fp32")


def test_a_file_that_follows_torch_is_opened(tmp_path: Path) -> None:
    assert try_graph(write_tokens(tmp_path, half=False), "fp32", SHAPE) < 1e-5


def test_a_transposed_product_in_fp16_is_opened_though_an_optimiser_of_the_runtime_crashes_at_it(tmp_path: Path) -> None:
    assert try_graph(write_tokens(tmp_path, half=True), "fp16", SHAPE) < 0.01


def test_a_file_of_other_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"model\.onnx does not compute what the torch network computes"):
        try_graph(write_tokens(tmp_path, half=False, weight=-WEIGHT), "fp32", SHAPE)


def test_a_file_without_a_kernel_is_refused_in_the_runtimes_words(tmp_path: Path) -> None:
    file = write_tokens(tmp_path, half=False)
    model = onnx.load(file)
    model.graph.node[0].domain = "com.nobody"
    model.opset_import.append(helper.make_opsetid("com.nobody", 1))
    onnx.save(model, file)
    with pytest.raises(BuildError, match=r"ONNX Runtime cannot run model\.onnx: .*com\.nobody"):
        try_graph(file, "fp32", SHAPE)


def test_an_engine_is_built_and_run_apart(tmp_path: Path, target: Target) -> None:
    file = write_tokens(tmp_path, half=False)
    coverage = build_engine(file, tmp_path / "engine.onnx", target, SHAPE)
    assert coverage["float_products"] == 1
    images = probe_images(SHAPE, 4)
    together, first = run_engine(EngineFile(file=tmp_path / "engine.onnx", target=target), [images, images[:1]])
    assert np.allclose(together, load_outputs(tmp_path), atol=1e-5)
    assert np.allclose(first, together[:1], atol=1e-6)


def test_a_library_that_crashes_or_hangs_is_told(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tokens(tmp_path, half=False)
    monkeypatch.setattr(apart, "HERE", "misbehaving")
    monkeypatch.setattr(reference, "HERE", "misbehaving")
    monkeypatch.setattr(reference, "SECONDS", 0.5)
    with pytest.raises(BuildError, match=r"building an engine of model\.onnx with onnxruntime ended its process: SIGSEGV"):
        build_engine(file, tmp_path / "engine.onnx", target, SHAPE)
    with pytest.raises(BuildError, match=r"running engine\.onnx with onnxruntime ended its process: SIGSEGV"):
        run_engine(EngineFile(file=tmp_path / "engine.onnx", target=target), [probe_images(SHAPE, 1)])
    with pytest.raises(BuildError, match=r"opening model\.onnx in ONNX Runtime took more than 0\.5 s; the process that did it was ended"):
        try_graph(file, "fp32", SHAPE)
