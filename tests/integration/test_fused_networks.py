"""Networks of the libraries that are trained in branches, pruned and fused; and a whole run of a small one."""

import json
from pathlib import Path

import onnx
import pytest
from branched import Branched
from onnx import numpy_helper
from torch import nn

from bonsai import compress, load
from bonsai.profiles.errors import ConfigError
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.graph.names import MODEL
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.fusing import Unfusable
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.fused_groups import deployed_form, require_fusable
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import Store

pytestmark = pytest.mark.slow  # large networks, a whole run

CONFIGS = Path(__file__).parent / "configs"
TINY, WIDE = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-wide"))
BRANCHED = {"model": {"name": "branched:Branched", "options": {"width": 32}}}
SETTINGS = {
    **BRANCHED,
    "training.epochs": 2,
    "training.threads": 1,
    "quantize.epochs": 2,
    "profile.gates.max_drop": 1,
    "profile.budget.latency": 0.9,
    "prune.margin": 0.1,
    "profile.target.precision": "int8",
    "profile.target.precisions": ["fp32", "int8"],
}


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "fastvit_t8", "repvit_m0_9"])
def test_networks_of_timm_are_fused_with_half_of_their_channels(name: str) -> None:
    shape = (3, 64, 64)
    network = build_network(ModelConfig(name=f"timm/{name}"), shape, 10)
    groups = find_groups(network, shape)
    form = deployed_form(network, groups, shape)
    assert form.edit is not None
    require_fusable(network, form.edit, groups, shape)
    before, after = (sum(isinstance(module, nn.Conv2d) for module in each.modules()) for each in (network, form.network))
    assert after < before


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fused")


@pytest.fixture(scope="module")
def package(root: Path) -> Package:
    (package,) = compress(TINY, WIDE, SETTINGS, store=root)
    return package


def test_candidates_are_exported_fused_whether_shortened_or_anew(root: Path) -> None:
    store = Store(root / "candidates")
    model = ModelConfig(name="branched:Branched", options={"width": 16})
    groups = find_groups(Branched(), (1, 16, 16))
    plan = WidthPlan(widths={group.name: group.width // 2 for group in groups})
    inputs = {"model": model, "image_shape": (1, 16, 16), "num_classes": 10, "dialect": "float", "float_type": "fp32", "opset": 20}
    dense = store.run(export_untrained, **inputs, plan=WidthPlan(), dense=None)
    short, anew = (store.run(export_untrained, **inputs, plan=plan, dense=each) for each in (dense, None))
    assert dense.fused
    assert short.fused
    assert (short.parameters, short.macs) == (anew.parameters, anew.macs)
    shapes = [sorted(tuple(numpy_helper.to_array(w).shape) for w in onnx.load(graph.folder / MODEL).graph.initializer) for graph in (short, anew)]
    assert shapes[0] == shapes[1]
    assert sum(node.op_type == "Conv" for node in onnx.load(dense.folder / MODEL).graph.node) == 9
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(dense.folder / MODEL).graph.node)


def test_every_row_says_that_it_is_fused_and_the_dense_reference_is(package: Package) -> None:
    assert [row.label for row in package.rows] == [
        "dense fused fp32",
        "simulated fused int8 PTQ",
        "simulated fused int8 QAT",
        "pruned fused fp32",
        "pruned fused int8 (shipped)",
    ]
    network = Branched(width=32)
    fused = deployed_form(network, find_groups(network, (1, 16, 16)), (1, 16, 16)).network
    assert package.rows[0].parameters == sum(parameter.numel() for parameter in fused.parameters())


def test_the_network_of_a_package_is_cut_fused_and_quantised_in_this_order(package: Package, root: Path) -> None:
    folder = root / "packages" / package.name
    record = json.loads((folder / "network.json").read_text())
    assert [edit["kind"] for edit in record["edits"]] == ["keep_channels", "fuse", "quantizers"]
    network = load(folder)
    assert "same.fused.conv.weight" in dict(network.named_parameters())
    assert (folder / "network.pt2").exists()
    assert "dense fused fp32" in (folder / "MODEL_CARD.md").read_text()


def test_training_and_pruning_see_the_branches_and_both_networks_are_fused_after_it(package: Package, root: Path) -> None:
    records = {stage: [json.loads((each / MANIFEST).read_text())["record"] for each in (root / stage).iterdir()] for stage in ("recover", "fuse")}
    assert [[edit["kind"] for edit in record["edits"]] for record in records["recover"]] == [["keep_channels"]]
    kinds = sorted([edit["kind"] for edit in record["edits"]] for record in records["fuse"])
    assert kinds == [["fuse"], ["keep_channels", "fuse"]]
    assert all(record["metrics"]["fused_difference"] < 1e-9 for record in records["fuse"])
    (trained,) = (root / "recover").iterdir()
    assert "same.large.0.weight" in dict(load(trained).named_parameters())


@pytest.mark.parametrize(("name", "reason"), [("Wrong", "computes something else than its branches"), ("Failing", "only on Tuesdays")])
def test_what_cannot_be_fused_is_refused_before_training(root: Path, name: str, reason: str) -> None:
    store = root / name
    with pytest.raises(Unfusable, match=reason):
        compress(TINY, WIDE, {**SETTINGS, "model": {"name": f"branched:{name}"}}, store=store)
    assert issubclass(Unfusable, ConfigError)
    assert not (store / "train_dense").exists()
