"""The whole path of a network that torch.fx cannot trace."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from untraceable import ComputedPadding

from bonsai import compress, load
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.slow  # its parts are tested in unit/stages/graph and test_quantised_networks
CONFIGS = Path(__file__).parent / "configs"
SHORT = {
    "training.epochs": 2,
    "quantize.epochs": 1,
    "quantize.frozen_epochs": 0,
    "prune.caps": {"*": 0.75},  # something is cut whatever a busy machine measures
    "profile.budget.latency": 0.9,
    "profile.gates.max_accuracy_drop": 0.9,
    "timing": {"runs": 100, "tries": 1, "fitting": 2, "warmup_runs": 20, "warmup_seconds": 0.1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untraceable")


@pytest.fixture(scope="module")
def package(root: Path) -> Package:
    (made,) = compress(str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml"), {"model.name": "untraceable:resnet8", **SHORT}, store=root)
    return made


def test_it_is_pruned_quantised_and_shipped_as_int8(package: Package, root: Path) -> None:
    dense, calibrated, simulated, pruned, engine = package.rows
    assert (calibrated.quantised, simulated.quantised) == ("ptq", "qat")
    assert {gate.name: gate.passed for gate in package.gates} == {"latency": True, "accuracy drop": True, "float convolutions": True}
    assert pruned.macs == simulated.macs == engine.macs < dense.macs
    assert engine.validation is not None
    assert abs(engine.validation.value - simulated.accuracy.value) < 0.03
    kernels = [node.op_type for node in onnx.load(root / "packages" / "tiny--tiny-cpu" / "engine.onnx").graph.node]
    assert kernels.count("QLinearConv") == 9
    assert not {"Conv", "FusedConv"} & set(kernels)


def test_its_checkpoints_are_rebuilt(package: Package, root: Path) -> None:
    manifest = json.loads((root / "packages" / "tiny--tiny-cpu" / MANIFEST).read_text())
    folders = {entry["artifact"].partition("/")[0]: root / entry["artifact"] for entry in reversed(manifest["lineage"])}
    pruned, quantised = load(folders["recover"]), load(folders["quantize"])
    assert isinstance(pruned.conv1, ComputedPadding)
    assert isinstance(quantised, torch.fx.GraphModule)
    assert quantised.conv1.conv.weight.shape == pruned.conv1.weight.shape == (16, 1, 3, 3)
    assert quantised(torch.zeros(3, 1, 16, 16)).shape == (3, 10)
