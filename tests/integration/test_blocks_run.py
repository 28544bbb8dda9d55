"""A whole run that must leave residual blocks out: the budget is below what the narrowest network with all of its blocks takes."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from bonsai import compress, load
from bonsai.profiles.errors import ConfigError
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.graph.names import MODEL
from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.slow  # a whole run

CONFIGS = Path(__file__).parent / "configs"
TINY, WIDE = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-wide"))
SETTINGS = {
    "model": {"name": "resnet20", "options": {"width": 16}},
    "training.epochs": 2,
    "training.threads": 1,
    "quantize.epochs": 2,
    "prune.blocks": True,
    "prune.floor": 0.6,
    "prune.margin": 0.1,
    "profile.gates.max_drop": 1,
    "profile.budget.latency": 0.45,
    "profile.target.precision": "int8",
    "profile.target.precisions": ["fp32", "int8"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


@pytest.fixture(scope="module")
def package(root: Path) -> Package:
    (package,) = compress(TINY, WIDE, SETTINGS, store=root)
    return package


def gone_from(folder: Path) -> list[str]:
    """Return the blocks whose inner group keeps no channels, by the package's manifest."""
    kept = json.loads((folder / MANIFEST).read_text())["decisions"]["kept_widths"]
    return [name.removesuffix(".conv1") for name, width in kept.items() if width == 0]


def test_blocks_leave_from_the_first_candidate_to_the_engine(package: Package, root: Path) -> None:
    folder = root / "packages" / package.name
    gone = gone_from(folder)
    assert gone
    graph = onnx.load(folder / MODEL).graph
    assert sum(node.op_type == "Conv" for node in graph.node) == 21 - 2 * len(gone)  # 19 and two on skip connections
    assert f"the residual blocks {', '.join(gone)} are left out" in (folder / "MODEL_CARD.md").read_text().replace("\\", "")
    assert "the residual block around it is left out" in (folder / "report.md").read_text()


def test_the_network_opens_without_its_blocks(package: Package, root: Path) -> None:
    folder = root / "packages" / package.name
    network = load(folder)
    assert not any(name.startswith(f"{block}.") for block in gone_from(folder) for name, _ in network.named_modules())
    program = torch.export.load(folder / "network.pt2").module()
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(network.eval()(images), program(images), atol=1e-5)


def test_without_leaving_blocks_out_the_budget_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="the latency budget cannot be met"):
        compress(TINY, WIDE, {**SETTINGS, "prune.blocks": False}, store=root)
