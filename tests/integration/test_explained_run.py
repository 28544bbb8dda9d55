"""A network that was quantised in torch and exported is explained with all that its package and torch know; each kind of fault is named in it, too."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import CASES, Case, plant
from quantised_package import rebuild, say_int8
from tiny_package import make_package, reseal

from bonsai.pipeline.run.simulated_tensors import simulated_tensors
from bonsai.profiles.errors import ConfigError
from bonsai.stages.explanation.explaining import explain
from bonsai.stages.explanation.records import Explanation
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, build, save_tensors
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.packed import write_network
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.tasks.task import TensorSpec

pytestmark = pytest.mark.slow
SHAPE, NUM_CLASSES = (1, 16, 16), 10
MODEL = ModelConfig(name="resnet8", options={"width": 16})
NOWHERE = Path("/nowhere")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package of a random ResNet-8, whose BatchNorms have seen images, calibrated and exported as a run does it."""
    folder, stored = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("checkpoint")
    images = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    network = build(MODEL, SHAPE, NUM_CLASSES).train()
    for _ in range(30):
        network(images)
    quantizers = Quantizers(dialect="ort", weight_bits=8)
    quantised = insert_quantizers(network, SHAPE, quantizers)
    to_channels_last(quantised)
    calibrate(quantised, [images])
    save_tensors(stored / WEIGHTS, quantised.state_dict())
    exported, outputs = to_export_form(quantised.eval(), "ort"), (TensorSpec("logits", (NUM_CLASSES,)),)
    make_package(folder)
    options = {"opset": 20, "batch": None, "dialect": "ort", "float_type": "fp32", "quantised": count_quantised(exported)}
    write_graph(exported, SHAPE, folder / "model.onnx", outputs=outputs, **options)  # type: ignore[arg-type]
    write_network(folder, Checkpoint(folder=stored, model=MODEL, image_shape=SHAPE, num_classes=NUM_CLASSES, edits=(quantizers,)))
    reseal(folder, say_int8)
    reseal(folder, lambda facts: facts["engine"].update(image_shape=SHAPE))  # type: ignore[attr-defined]
    rebuild(folder, images[:3].numpy())
    return folder


@pytest.fixture(scope="module")
def explained(made: Path) -> Explanation:
    return explain(made, NOWHERE, simulated_tensors(made))


def test_no_layer_of_an_exported_network_stands_out_and_layers_have_the_network_s_names(explained: Explanation) -> None:
    assert explained.findings == ()
    layers = {layer.name: layer for layer in explained.layers}
    assert {"input", "conv1", "layer1.0.conv1", "layer1.0.conv2", "layer3.0.shortcut.0", "fc", "Add after layer1.0.conv2"} <= set(layers)
    assert all(layer.engine_us and layer.engine is not None and layer.engine < 0.02 for layer in explained.layers)


def test_the_file_and_its_float_form_compute_what_torch_does(explained: Explanation) -> None:
    assert explained.outputs["torch float"] < 1e-4
    assert explained.outputs["simulated"] < 0.02
    simulated = {layer.name: layer.simulated for layer in explained.layers if layer.simulated is not None}
    assert {"conv1", "layer1.0.conv1", "layer1.0.conv2", "Add after layer1.0.conv2"} <= set(simulated)
    assert all(error < 0.01 for error in simulated.values())


def test_a_fault_of_the_export_is_seen_beside_torch(made: Path, tmp_path: Path) -> None:
    package = shutil.copytree(made, tmp_path / "package")
    planted = plant(package, Case("channel order", "model.onnx"), np.random.default_rng(3))
    found = explain(package, NOWHERE, simulated_tensors(package))
    errors = {layer.name: layer.simulated for layer in found.layers if layer.simulated is not None}
    assert errors.pop(planted.layer) > 0.1
    assert all(error < 0.01 for error in errors.values()), "the layers behind it read what torch reads"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} in {case.place}")
def test_every_kind_of_fault_is_named_in_an_exported_network(made: Path, tmp_path: Path, case: Case) -> None:
    package = shutil.copytree(made, tmp_path / "package")
    planted = plant(package, case, np.random.default_rng([7, CASES.index(case)]))
    found = explain(package, NOWHERE)
    assert [(finding.layer, finding.kind, finding.place) for finding in found.findings] == [tuple(planted)]


def test_torch_compares_no_network_in_float(made: Path, tmp_path: Path) -> None:
    stored = tmp_path / "checkpoint"
    stored.mkdir()
    save_tensors(stored / WEIGHTS, build(MODEL, SHAPE, NUM_CLASSES).state_dict())
    package = shutil.copytree(made, tmp_path / "package")
    write_network(package, Checkpoint(folder=stored, model=MODEL, image_shape=SHAPE, num_classes=NUM_CLASSES))
    reseal(package)
    with pytest.raises(ConfigError, match="--torch compares the fake-quantised network, and this one is in float"):
        simulated_tensors(package)
