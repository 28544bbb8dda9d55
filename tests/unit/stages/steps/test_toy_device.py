"""The stages need a `Device` and nothing else: here it is another process, and no backend of this one can build, load or profile anything."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import load_file
from scripted_device import use
from toy_device import ENGINE, ToyDevice

from bonsai.profiles.budget import Budget
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.device import Device
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.onnxruntime_engine import OnnxRuntimeBackend
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.names import INPUT, MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.graph.probes import probe_images, save_outputs
from bonsai.stages.measurement.judging import observe
from bonsai.stages.measurement.results import run_for_accuracy
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.steps.benchmark import benchmark
from bonsai.stages.steps.characterize import characterize
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

SHAPE = (1, 8, 8)
TARGET = load_profile("local-cpu").target.at("fp32")
TIMING = TimingConfig(runs=200, block=10, warmup_runs=5, warmup_seconds=0)
NARROW, WIDE = 16, 1536


@pytest.fixture(autouse=True)
def without_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a stage reached around the device")

    for verb in ("describe", "build", "open_engine", "open_profiled"):
        monkeypatch.setattr(OnnxRuntimeBackend, verb, refuse)


@pytest.fixture(scope="module")
def other() -> Iterator[ToyDevice]:
    with ToyDevice() as device:
        yield device


@pytest.fixture
def device(other: ToyDevice, monkeypatch: pytest.MonkeyPatch) -> ToyDevice:
    other.told.clear()
    use(other, monkeypatch)
    return other


def matrices(width: int) -> list[np.ndarray]:
    """Return the weights of a network of three products."""
    rng = np.random.default_rng(0)
    sides = (64, width, width, 3)
    return [rng.standard_normal(shape).astype(np.float32) / shape[0] ** 0.5 for shape in pairwise(sides)]


def expected(width: int, images: np.ndarray) -> np.ndarray:
    found = images.reshape(len(images), -1)
    for matrix in matrices(width):
        found = found @ matrix
    return found


def graph_of(folder: Path, width: int, *, torch_says: np.ndarray | None = None) -> OnnxGraph:
    """Write the network; `torch_says` are the outputs that torch is said to give for the first probe images."""
    folder.mkdir()
    named = [numpy_helper.from_array(matrix, f"matrix {number}") for number, matrix in enumerate(matrices(width))]
    nodes = [helper.make_node("Flatten", [INPUT], ["0"])]
    nodes += [helper.make_node("MatMul", [str(number), matrix.name], [str(number + 1)]) for number, matrix in enumerate(named)]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape]) for name, shape in ((INPUT, SHAPE), ("3", (3,)))]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], named)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / MODEL)
    if torch_says is not None:
        save_outputs(folder, torch_says)
    facts = {"dialect": "float", "float_type": "fp32", "opset": 18, "image_shape": SHAPE, "audit": {}, "parity": {}, "parameters": 48, "macs": 48}
    return OnnxGraph.model_validate({"folder": folder, **facts})


def built(graph: OnnxGraph, name: str) -> Engine:
    folder = graph.folder.parent / name
    folder.mkdir()
    return compile_engine(folder, graph=graph, target=TARGET, info=device_of(TARGET).describe(TARGET))


def test_it_answers_all_that_the_protocol_asks(device: ToyDevice) -> None:
    whole: Device = device  # mypy compares the signatures
    assert whole.describe(TARGET).device == "a toy"


def test_an_engine_is_what_the_device_built_and_its_outputs_are_judged_here(device: ToyDevice, tmp_path: Path) -> None:
    engine = built(graph_of(tmp_path / "graph", NARROW), "fast")
    assert (engine.file, engine.info.device) == (ENGINE, "a toy")
    images = probe_images(SHAPE, 8)
    answers = expected(NARROW, images).argmax(axis=1)
    outputs = list(run_for_accuracy(engine, TARGET, (image[None] for image in images)))
    assert np.allclose(np.concatenate(outputs), expected(NARROW, images), atol=1e-4)
    assert CLASSIFICATION.reduce(observe(outputs, answers, CLASSIFICATION)) == 1
    assert device.told == ["build model.onnx", "run fast"]


def test_an_untrained_engine_is_tried_on_the_device_and_compared_here(device: ToyDevice, tmp_path: Path) -> None:
    outputs = expected(NARROW, probe_images(SHAPE, 4))
    built(graph_of(tmp_path / "graph", NARROW, torch_says=outputs), "right")
    assert device.told[-1] == "try right"
    with pytest.raises(BuildError, match=r"engine\.toy does not compute what the torch network computes"):
        built(graph_of(tmp_path / "other", NARROW, torch_says=-outputs), "wrong")


def test_what_the_device_refuses_is_told_here(device: ToyDevice, tmp_path: Path) -> None:
    graph = graph_of(tmp_path / "graph", NARROW)
    (graph.folder / MODEL).write_bytes(b"no graph")
    with pytest.raises(BuildError, match=r"the toy device cannot load engine\.toy"):
        built(graph, "none")


def test_candidates_and_the_finished_engine_are_timed_on_the_device(device: ToyDevice, tmp_path: Path) -> None:
    fast, dense = (built(graph_of(tmp_path / f"graph {name}", width), name) for name, width in (("fast", NARROW), ("dense", WIDE)))
    shared = {"target": TARGET, "image_shape": SHAPE, "timing": TIMING, "percentile": 50, "repeat": 0}
    found = benchmark(tmp_path, candidates=(fast,), reference=dense, **shared)
    assert {values.shape for values in load_file(tmp_path / "samples.safetensors").values()} == {(2, TIMING.runs)}
    assert 0 < found.candidates[0].latency.p50 < 0.8 * found.reference.p50
    judged = {"target": TARGET, "budget": Budget(latency=0.8), "timing": TIMING, "verdict": TIMING.verdict, "known_ms": None, "repetition": 1}
    timed = time_engine(tmp_path, engine=fast, dense=dense, **judged)
    assert timed.fresh.interval.found < 0.8
    assert device.told[2] == "time dense, fast"
    assert set(device.told[3:-1]) == {"time fast, dense once"}
    assert device.told[-1] == "time fast once"
    assert timed.footprint is None, "this device tells nothing of an engine that is alone"
    files = {"samples.safetensors", *(f"samples-{number + 1}.safetensors" for number in range(len(timed.fresh.processes)))}
    assert {file.name for file in tmp_path.glob("samples*")} == files


def test_a_table_holds_what_the_device_measured_of_each_operator(device: ToyDevice, tmp_path: Path) -> None:
    network = {"model": ModelConfig(name="resnet8"), "image_shape": SHAPE, "num_classes": 10}
    found = characterize(tmp_path, **network, target=TARGET, info=device.describe(TARGET), step=8, brought=None)
    table = found.load(TARGET)
    assert (found.source, table.meta.device) == ("measured", "a toy")
    assert {entry.kernels for entry in table.entries} == {"toy"}
    assert all(entry.p50_us > 0 for entry in table.entries)
    assert device.told == [f"time {len(table.entries)} operators"]
