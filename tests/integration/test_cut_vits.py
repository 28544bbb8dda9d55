"""Transformers that have lost heads, MLP widths and embedding widths: stored, packed, exported and quantised they stay the same function."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.parity import compare
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, build, load_network, save_tensors
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Edit, Quantizers
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.networks.packed import read_network, write_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

pytestmark = pytest.mark.slow

HOST = load_profile("local-cpu").target
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
MODELS = {  # network, its products of layers
    "torch's encoder": (ModelConfig(name="small_vits:Encoded"), 1 + 2 * 6 + 1),
    "torch's encoder, norms first": (ModelConfig(name="small_vits:Encoded", options={"norm_first": True, "activation": "gelu"}), 14),
    "torchvision": (ModelConfig(name="small_vits:torchvision_vit"), 14),
    "timm": (ModelConfig(name="timm/vit_tiny_patch16_224", options=SMALL), 1 + 2 * 4 + 1),
}
SHAPE = (3, 32, 32)


def narrowed(model: ModelConfig) -> tuple[nn.Module, Edit]:
    """Return a network of every width about two thirds, in evaluation, and the cut."""
    network = build(model, SHAPE, 5)
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    groups = find_groups(network, SHAPE)
    assert sum(group.positions > 1 for group in groups) == 2
    return network.eval(), cut(network, groups, {group.name: tuple(range(1, 1 + group.width * 2 // 3)) for group in groups})


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_and_a_package_give_back_the_cut_network(name: str, tmp_path: Path) -> None:
    model, _ = MODELS[name]
    network, edit = narrowed(model)
    (tmp_path / "checkpoint").mkdir()
    save_tensors(tmp_path / "checkpoint" / WEIGHTS, network.state_dict())
    checkpoint = Checkpoint(folder=tmp_path / "checkpoint", model=model.model_copy(update={"seed": 7}), image_shape=SHAPE, num_classes=5, edits=(edit,))
    images = random_images(3, SHAPE)
    assert torch.equal(load_network(checkpoint).eval()(images), network(images))
    write_network(tmp_path, checkpoint)
    assert torch.equal(read_network(tmp_path).eval()(images), network(images))
    program = torch.export.load(tmp_path / "network.pt2").module()
    torch.testing.assert_close(program(images), network(images))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("quantised", [False, True], ids=["float", "int8"])
def test_an_engine_of_the_cut_network_computes_what_it_does(name: str, quantised: bool, tmp_path: Path) -> None:
    model, layers = MODELS[name]
    network, _ = narrowed(model)
    made = network
    if quantised:
        made = insert_quantizers(network.train(), SHAPE, Quantizers(dialect="ort", weight_bits=8))
        calibrate(made, [random_images(64, SHAPE)])
        made.train()(random_images(4, SHAPE)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        made.eval()
    exported = to_export_form(made, "ort") if quantised else made
    count = count_quantised(exported) if quantised else 0
    write_graph(exported, SHAPE, tmp_path / MODEL, opset=20, batch=None, dialect="ort", float_type="fp32", quantised=count)
    coverage = backend.build(tmp_path / MODEL, tmp_path / "engine.onnx", HOST, SHAPE)
    parity = compare(made, backend.open_engine(tmp_path / "engine.onnx", HOST), random_images(16, SHAPE), CLASSIFICATION)
    assert parity["mean_difference"] / parity["spread"] < (0.1 if quantised else 1e-4)
    if quantised:
        assert (count, coverage["float_products"]) == (layers, 2 * 2)  # the two products of each attention
