"""Runs whose recipes train no dense reference: none at all, then the same one with it, then one whose weights are given."""

import json
from pathlib import Path

import pytest
import torch

from bonsai import compress, load
from bonsai.profiles.errors import ConfigError
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.slow  # three runs

CONFIGS = Path(__file__).parent / "configs"
TINY, WIDE = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-wide"))
QUICK = {"training.epochs": 2, "training.threads": 1}
NONE = {**QUICK, "training.reference": "none", "profile.gates": {"max_drop": None, "min_metric": 0.1}}
TRAINED = ("prepare", "prune", "recover")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("none")


@pytest.fixture(scope="module")
def package(root: Path) -> Package:
    (package,) = compress(TINY, WIDE, NONE, store=root)
    return package


def made(root: Path, *stages: str) -> set[str]:
    return {f"{stage}/{folder.name}" for stage in stages for folder in (root / stage).iterdir()}


def test_the_trunk_ends_at_the_branch_and_the_budget_still_holds(package: Package, root: Path) -> None:
    dense, *_, shipped = package.rows
    assert (dense.label, dense.accuracy, shipped.judged.part) == ("dense fp32 (untrained)", None, "test")
    assert dense.latency is not None
    assert shipped.latency is not None
    assert shipped.latency.p50 <= 0.7 * dense.latency.p50
    assert [(gate.name, gate.verdict) for gate in package.gates] == [("latency", "met"), ("accuracy", "met")]
    steps = [json.loads((root / address / MANIFEST).read_text())["record"]["step"] for address in made(root, "train_dense")]
    assert max(steps) == json.loads((root / made(root, "prune").pop() / MANIFEST).read_text())["record"]["step"]


def test_every_text_says_that_there_is_no_reference(package: Package, root: Path) -> None:
    folder = root / "packages" / package.name
    for file in ("MODEL_CARD.md", "report.md", "report.html"):
        assert "no dense reference was trained, so no accuracy drop is known" in (folder / file).read_text(), file
    assert package.decisions.dense_history == ()  # the branch left within the first epoch


def test_a_later_run_with_a_reference_goes_on_from_the_trunk_and_trains_no_branch_again(package: Package, root: Path) -> None:
    before, trunk = made(root, *TRAINED), made(root, "train_dense")
    (compared,) = compress(TINY, WIDE, {**QUICK, "profile.gates.max_drop": 1}, store=root)
    assert made(root, *TRAINED) == before
    assert made(root, "train_dense") > trunk
    assert compared.rows[0].accuracy is not None
    assert compared.engine_sha256 == package.engine_sha256


def test_weights_that_are_given_are_the_reference_and_the_start(package: Package, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    latest = max((root / "train_dense").iterdir(), key=lambda folder: json.loads((folder / MANIFEST).read_text())["record"]["step"])
    given = load(latest).state_dict()
    torch.save({"epoch": 2, "state_dict": given}, tmp_path / "start.pth")
    settings = {**QUICK, "training.reference": "given", "profile.gates.max_drop": 1, "model.weights": "start.pth", "prune.distill": {}}
    (compared,) = compress(TINY, WIDE, settings, store=tmp_path / "store")
    (untouched,) = (tmp_path / "store" / "initialise").iterdir()
    assert all(torch.equal(value, given[name]) for name, value in load(untouched).state_dict().items())
    dense = compared.rows[0]
    assert (dense.label, dense.judged.part) == ("dense fp32", "test")
    assert [gate.name for gate in compared.gates] == ["latency", "accuracy drop"]
    steps = [json.loads((folder / MANIFEST).read_text())["record"]["step"] for folder in (tmp_path / "store" / "train_dense").iterdir()]
    branch = json.loads((tmp_path / "store" / made(tmp_path / "store", "prune").pop() / MANIFEST).read_text())
    assert max(steps) == branch["record"]["step"]
    assert "is the network with the given weights" in (tmp_path / "store" / "packages" / compared.name / "MODEL_CARD.md").read_text()


def test_a_recipe_starts_with_the_network_that_another_one_trained(package: Package, root: Path) -> None:
    before = made(root, "initialise")
    settings = {**QUICK, "name": "later", "training.reference": "given", "profile.gates.max_drop": 1, "model.weights": "recipe:tiny"}
    compress(TINY, WIDE, settings, store=root)
    (initial,) = made(root, "initialise") - before
    taken = json.loads((root / initial / MANIFEST).read_text())["inputs"]["weights"]["artifact"]
    step = {address: json.loads((root / address / MANIFEST).read_text())["record"]["step"] for address in made(root, "train_dense")}
    expected = load(root / taken).state_dict()
    assert step[taken] == max(step.values())
    assert all(torch.equal(value, expected[name]) for name, value in load(root / initial).state_dict().items())
    with pytest.raises(ConfigError, match="no recipe of this name was run with this store"):
        compress(TINY, WIDE, {**settings, "model.weights": "recipe:tinny"}, store=root)
